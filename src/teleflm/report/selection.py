"""The page of a selection: its clusters, what was kept of each, and what was left out and why."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from teleflm.report.figures import INK, MUTED, RULE, STAGE_COLOURS
from teleflm.report.page import Chart, chart, write_page
from teleflm.report.words import decimal, percent, whole

Floats = npt.NDArray[np.floating[Any]]
Flags = npt.NDArray[np.bool_]

_WIDTH = 8.6
# More would be a page of many megabytes, and a cloud anyway.
_MOST_POINTS, _MOST_BARS, _MOST_CLUSTERS = 1500, 60, 60
_BINS, _FAR = 40, 2.5


class Example(NamedTuple):
    """A record that is shown; `surprise` is NaN where it was not measured."""

    where: str
    text: str
    verdict: str
    surprise: float


class Shown(NamedTuple):
    """What the page has beside the figures.

    Attributes:
        places: of the records that were measured in a plane, (n, 2).
        kept, noise: which of them were kept, and which are noise, (n,).
        surprise: of each, as a share of what noise begins at, (n,).
        clusters: of each some that were kept and some that were not, the largest first.
        reasons: some that were left out, by the reason.
    """

    places: Floats
    kept: Flags
    noise: Flags
    surprise: Floats
    clusters: list[tuple[list[Example], list[Example]]]
    reasons: dict[str, list[Example]]


def write_selection_page(path: Path, facts: Mapping[str, Any], shown: Shown) -> Path:
    """Write the page.

    Args:
        path: of the page.
        facts: what `data select --json` prints.

    Raises:
        MissingExtraError: matplotlib or jinja2 is not installed.
    """
    clusters = list(zip(facts["clusters"], shown.clusters, strict=True))
    return write_page(
        path,
        "selection.html",
        title=f"Selection of {Path(facts['out']).name}",
        folder=path.parent.resolve().name,
        lede=[
            f"{whole(facts['kept'])} of {whole(facts['records'])} records were kept, "
            f"{percent(facts['kept'] / facts['records'], 1)}, out of {len(clusters)} clusters."
        ],
        facts=facts,
        shown=shown,
        clusters=clusters[:_MOST_CLUSTERS],
        plane=_plane(shown),
        bars=_bars(facts["clusters"]),
        histogram=_histogram(shown.surprise),
    )


def _plane(shown: Shown) -> Chart:
    layers = {
        "left out": (~shown.kept & ~shown.noise, MUTED, 0.35),
        "noise": (shown.noise, STAGE_COLOURS[4], 0.6),
        "kept": (shown.kept, STAGE_COLOURS[0], 0.9),
    }

    def draw(axes: Any) -> None:
        for name, (which, colour, alpha) in layers.items():
            points = shown.places[which]
            points = points[:: -(-len(points) // _MOST_POINTS) or 1]
            axes.scatter(*points.T, s=9, color=colour, alpha=alpha, linewidths=0, label=name)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.figure.legend(loc="outside upper left", frameon=False, ncols=3)

    said = ", ".join(f"{int(which.sum()):,} {name}" for name, (which, *_) in layers.items())
    return chart("plane", (_WIDTH, 5.0), f"Records as points in a plane: {said}.", draw)


def _bars(clusters: list[Mapping[str, int]]) -> Chart:
    some = clusters[:_MOST_BARS]

    def draw(axes: Any) -> None:
        at = range(1, len(some) + 1)
        axes.bar(at, [cluster["records"] for cluster in some], color=RULE, label="records")
        axes.bar(at, [cluster["kept"] for cluster in some], color=STAGE_COLOURS[0], label="kept")
        axes.yaxis.set_major_formatter("{x:,.0f}")
        axes.set_xlabel("clusters, the largest first")
        axes.figure.legend(loc="outside upper left", frameon=False, ncols=2)

    said = (
        f"Bars of the {len(some)} largest clusters: the first has {some[0]['records']:,} records, "
        f"of which {some[0]['kept']:,} were kept, the last shown {some[-1]['records']:,} and "
        f"{some[-1]['kept']:,}."
    )
    return chart("clusters", (_WIDTH, 2.8), said, draw)


def _histogram(surprise: Floats) -> Chart:
    def draw(axes: Any) -> None:
        # Beyond that it makes no difference how far.
        axes.hist(np.minimum(surprise, _FAR), bins=_BINS, color=STAGE_COLOURS[0])
        axes.axvline(1, color=INK, linestyle="--", linewidth=1)
        axes.set_xlabel("surprise, the neighbours considered; above 1 is noise")
        axes.set_ylabel("records", color=MUTED)

    middle, beyond = decimal(float(np.median(surprise)), 2), int(np.sum(surprise > 1))
    said = f"Records by surprise: the median is {middle}, and {beyond:,} are above 1, noise."
    return chart("surprise", (_WIDTH, 2.6), said, draw)
