"""The pictures of a job: memory by rank, the pipeline's timeline, the search."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from teleflm.parallel.memory import size_text
from teleflm.report.figures import CARD, INK, MUTED, STAGE_COLOURS

KINDS = dict(zip(("parameters", "gradients", "optimizer", "activations"), range(4), strict=True))
"""Kinds of memory, from the bottom of a bar, with their colours in the palette."""

PASSES = {"forward": 0, "backward": 1, "input": 1, "weight": 2}
"""Passes of a micro-batch, with their colours in the palette."""

Box = tuple[str, int, int, float, float]
"""Pass, stage, micro-batch, and start and end in seconds."""

# A limit so many times above the bars would press them flat.
_FAR = 6.0
# As many bars and rows as have room for a figure each.
_LABELLED = 12
_TICKS = 14
_PALE = 0.5
# Of a row's height.
_HALF = 0.42
# Fewer bars are not made wider.
_FEW = 6
_BEHIND = {"facecolor": CARD, "edgecolor": "none", "pad": 1.5}
# By this factor the scale of a search goes on beside its points.
_ROOM = 6.0


def limit_is_near(totals: Sequence[int], limit: int) -> bool:
    """Whether a device's memory is drawn beside what is needed of it."""
    return limit <= _FAR * max(totals)


def draw_memory(axes: Any, ranks: Sequence[dict[str, int]], limit: int | None) -> None:
    """Stacked bars, and a device's memory as a line."""
    from matplotlib.ticker import FuncFormatter

    places = np.arange(len(ranks))
    below = np.zeros(len(ranks))
    for kind, colour in KINDS.items():
        values = np.array([kinds[kind] for kinds in ranks], dtype=float)
        axes.bar(places, values, 0.72, bottom=below, color=STAGE_COLOURS[colour], linewidth=0)
        below += values
    if len(ranks) <= _LABELLED:
        for place, total in zip(places, below, strict=True):
            axes.annotate(
                size_text(int(total)), (place, total), (0, 3), textcoords="offset points",
                ha="center", va="bottom", fontsize=10, color=MUTED, bbox=_BEHIND,
            )  # fmt: skip
    top, edge = below.max(), (max(len(ranks), _FEW) - len(ranks)) / 2 + 0.6
    right = len(ranks) - 1 + edge
    if limit is not None and limit_is_near([int(top)], limit):
        top = max(top, limit)
        # The words stand right of the last bar.
        axes.annotate(
            f"{size_text(limit)}\nof a device", (right, limit), (4, 0), ha="left", va="center",
            textcoords="offset points", fontsize=10.5, bbox=_BEHIND,
        )  # fmt: skip
        axes.axhline(limit, color=INK, linewidth=1.0, linestyle=(0, (4, 3)), zorder=2)
        right += (right + edge) / 9
    axes.set_ylim(0, 1.1 * top)
    axes.set_xlim(-edge, right)
    axes.set_xticks(_ticks(len(ranks)))
    axes.yaxis.set_major_formatter(
        FuncFormatter(lambda value, _: size_text(int(value)) if value else "0")
    )
    axes.set_xlabel("pipeline rank")


def _ticks(ranks: int) -> range:
    return range(0, ranks, -(-ranks // _TICKS))


def draw_timeline(axes: Any, ranks: Sequence[Sequence[Box]]) -> None:
    """A row a pipeline rank, a box a pass; what is empty is the bubble."""
    end = max(boxes[-1][4] for boxes in ranks)
    # Between boxes; wider than that, it would hide those that are narrow.
    gap = min(0.5, 25 / len(ranks[0]))
    for name, colour in PASSES.items():
        for is_later in (False, True):
            found = [
                (start, stop, row)
                for row, boxes in enumerate(ranks)
                for kind, stage, _, start, stop in boxes
                if kind == name and (stage >= len(ranks)) == is_later
            ]
            alpha = _PALE if is_later else 1.0
            _draw_boxes(axes, found, facecolor=STAGE_COLOURS[colour], alpha=alpha, linewidth=gap)
    axes.set_xlim(0, 1.004 * end)
    axes.set_ylim(len(ranks) - 0.4, -0.6)
    axes.grid(visible=False)
    axes.set_yticks(_ticks(len(ranks)))
    axes.set_xlabel("seconds")
    axes.set_ylabel("pipeline rank")


def _draw_boxes(axes: Any, boxes: Sequence[tuple[float, float, int]], **style: Any) -> None:
    """One path for all boxes: thousands of elements would make the page slow."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    if not boxes:
        return
    corners = [
        corner
        for start, stop, row in boxes
        for corner in (
            (start, row - _HALF),
            (stop, row - _HALF),
            (stop, row + _HALF),
            (start, row + _HALF),
            (start, row - _HALF),
        )
    ]
    codes = [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY] * len(boxes)
    axes.add_patch(PathPatch(Path(corners, codes), edgecolor=CARD, **style))


@dataclass(frozen=True)
class Point:
    """A plan of the search: bytes on the rank that needs most, seconds of a step, whether it
    fits."""

    memory: int
    seconds: float
    fits: bool


def draw_search(
    axes: Any, points: Sequence[Point], limit: int, marked: Sequence[tuple[str, Point]]
) -> None:
    """Memory against time; those that do not fit are hollow, a few have names."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    for fits in (False, True):
        chosen = [point for point in points if point.fits == fits]
        axes.scatter(
            [point.memory for point in chosen], [point.seconds for point in chosen],
            s=18, linewidths=0.8,
            facecolors=STAGE_COLOURS[0] if fits else "none",
            edgecolors=STAGE_COLOURS[0] if fits else MUTED,
            alpha=0.75 if fits else 0.5,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    memory = [point.memory for point in points]
    # Room for the names, which stand left of their points, and for the limit's, which is right.
    axes.set_xlim(min(memory) / _ROOM, max(1.3 * max(memory), _ROOM / 2 * limit))
    axes.margins(y=0.12)
    axes.axvline(limit, color=INK, linewidth=1.0, linestyle=(0, (4, 3)))
    axes.annotate(
        f"{size_text(limit)} of a device", (limit, 1.0), (5, -2), va="top", fontsize=10.5,
        xycoords=("data", "axes fraction"), textcoords="offset points",
    )  # fmt: skip
    for axis, words in ((axes.xaxis, size_text), (axes.yaxis, "{:g}".format)):
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=16))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _, words=words: words(value)))
    axes.set_xlabel("memory of the rank that needs most")
    axes.set_ylabel("seconds of a step")
    # The slowest one's above it, the other's below: the two never meet.
    for row, (name, point) in enumerate(sorted(marked, key=lambda mark: -mark[1].seconds)):
        _name(axes, name, point, row)


def _name(axes: Any, name: str, point: Point, row: int) -> None:
    axes.scatter([point.memory], [point.seconds], s=52, color=STAGE_COLOURS[1 + row], zorder=3)
    axes.annotate(
        name,
        (point.memory, point.seconds),
        (-14, 14 if row == 0 else -14),
        textcoords="offset points",
        ha="right",
        va="center",
        fontsize=10.5,
        bbox=_BEHIND,
        arrowprops={"arrowstyle": "-", "color": INK, "linewidth": 0.7, "shrinkB": 4},
    )
