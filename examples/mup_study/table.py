"""The tables and the picture of the µP study, from its results."""

from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from teleflm.report import figures

Result = dict[str, Any]
Curve = dict[float, list[float]]
"""Held-out losses of the seeds by rate."""

_NAMES = {"mup": "µP", "standard": "standard"}
_RATES = {"matrix_rate": "matrix rate", "vector_rate": "vector rate"}


def tables(results: Sequence[Result]) -> str:
    """Markdown: losses by rate and width, the best of each row in bold."""
    parts = []
    for title, rate, growth in (
        *((f"From scratch, by {name}", rate, None) for rate, name in _RATES.items()),
        *((f"Grown by {growth}", "matrix_rate", growth) for growth in ("mask", "clone")),
    ):
        found = curves(results, rate, growth)
        if found:
            parts.append("\n".join([f"**{title}**", "", *_table(found)]))
    return "\n\n".join(parts)


def bests(results: Sequence[Result]) -> str:
    """Markdown: the best matrix rate of each width from scratch, that was tried and by `valley`."""
    found = curves(results, "matrix_rate", None)
    widths = sorted({width for _, width in found})
    head = ["best matrix rate, × 1e-4", *map(str, widths)]
    lines = [_row(head), _row(["---"] * len(head))]
    for kind, name in _NAMES.items():
        for way, best in (("the best that was tried", lowest), ("bottom of a parabola", valley)):
            rates = [f"{1e4 * best(found[kind, width]):.3g}" for width in widths]
            lines.append(_row([f"{name}, {way}", *rates]))
    return "\n".join(lines)


def _table(found: dict[tuple[str, int], Curve]) -> list[str]:
    rates = sorted({rate for curve in found.values() for rate in curve})
    head = ["parametrization", "width", "seeds", *(f"{rate:g}" for rate in rates), "best"]
    lines = [_row(head), _row(["---"] * len(head))]
    for (parametrization, width), curve in found.items():
        cells = [_cell(curve.get(rate), rate == lowest(curve)) for rate in rates]
        seeds = str(max(map(len, curve.values())))
        lines.append(
            _row([_NAMES[parametrization], str(width), seeds, *cells, f"{valley(curve):.2g}"])
        )
    return lines


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(losses: list[float] | None, is_best: bool) -> str:
    if not losses:
        return ""
    text = f"{mean(losses):.3f}" + (f" ± {stdev(losses):.3f}" if len(losses) > 1 else "")
    return f"**{text}**" if is_best else text


def curves(
    results: Sequence[Result], rate: str, growth: str | None
) -> dict[tuple[str, int], Curve]:
    """The losses by (parametrization, width), over one of the rates with the other at its best.

    A width that both parametrizations share is under both.
    """
    other = next(name for name in _RATES if name != rate)
    mine = [each for each in results if each["growth"] == growth and each["loss"] is not None]
    # The other's best is what most runs have.
    usual = _commonest([each[other] for each in mine])
    mine = [each for each in mine if each[other] == usual]
    shared = {each["width"] for each in mine} - {
        each["width"] for each in mine if each["parametrization"] == "standard"
    }
    found: dict[tuple[str, int], Curve] = {}
    for parametrization in _NAMES:
        for width in sorted({each["width"] for each in mine}):
            own = [
                each
                for each in mine
                if each["width"] == width
                and (each["parametrization"] == parametrization or width in shared)
            ]
            curve: Curve = {}
            for each in own:
                curve.setdefault(each[rate], []).append(each["held_out"])
            if len(curve) > 1 and (growth is None or parametrization == "mup"):
                found[parametrization, width] = curve
    return found


def _commonest(values: Sequence[float]) -> float | None:
    return max(set(values), key=list(values).count) if values else None


def lowest(curve: Curve) -> float:
    """The rate with the lowest mean."""
    return min(curve, key=lambda rate: mean(curve[rate]))


def valley(curve: Curve) -> float:
    """The rate at the bottom of the parabola through the best point and its neighbours, over the
    logarithm of the rate; at an end of the grid that end."""
    rates = sorted(curve)
    losses = [mean(curve[rate]) for rate in rates]
    place = rates.index(lowest(curve))
    if not 0 < place < len(rates) - 1:
        return rates[place]
    near = slice(place - 1, place + 2)
    bend, slope, _ = np.polyfit(np.log2(rates[near]), losses[near], 2)
    return float(2 ** (-slope / (2 * bend)))


def pictured(results: Sequence[Result], png: Path) -> None:
    """Draw the losses by matrix rate, µP beside the standard parametrization."""
    found = curves(results, "matrix_rate", None)

    def draw(axes: Any) -> None:
        figure = axes.figure
        axes.remove()
        for panel, name in zip(figure.subplots(1, 2, sharey=True), _NAMES, strict=True):
            _panel(panel, {width: curve for (kind, width), curve in found.items() if kind == name})
            panel.set_title(_NAMES[name], loc="left", fontsize=13, fontweight="bold")

    figures.png(png, (11.0, 4.6), draw)


def _panel(axes: Any, by_width: dict[int, Curve]) -> None:
    axes.set_xscale("log", base=2)
    ticks = sorted({rate for curve in by_width.values() for rate in curve})
    axes.set_xticks(ticks, [f"{1e4 * rate:.3g}" for rate in ticks])
    axes.set_xlabel("matrix learning rate (µP: at width 64), in 1e-4")
    axes.set_ylabel("held-out loss")
    for (width, curve), colour in zip(by_width.items(), figures.STAGE_COLOURS, strict=False):
        rates = sorted(curve)
        losses = [mean(curve[rate]) for rate in rates]
        axes.plot(rates, losses, color=colour, marker="o", markersize=4, label=f"width {width}")
        best = lowest(curve)
        axes.plot(best, mean(curve[best]), color=colour, marker="o", markersize=9)
    axes.legend(frameon=False)
