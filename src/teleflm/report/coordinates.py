"""The page of a coordinate check, from what `teleflm.tuning.check` says of it."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from teleflm.report.figures import INK, MUTED, STAGE_COLOURS
from teleflm.report.page import Chart, chart, write_page

Facts = Mapping[str, Any]
AXES = {
    "width": "width",
    "ramp": "effective width, masks half open",
    "depth": "layers",
}
"""What the models of a family differ in."""


class Cell(NamedTuple):
    """A slope in words; `wrong` where it is not what it is to be, `judged` where it is to be
    anything."""

    text: str
    judged: bool
    wrong: bool


def columns(facts: Facts) -> list[str]:
    """The columns of the table: `width/init`, `width/update`, `ramp/init` …"""
    return [f"{family['name']}/{kind}" for family in facts["families"] for kind in _KINDS]


def rows(facts: Facts) -> dict[str, list[Cell | None]]:
    """The table of slopes: for each quantity those of `columns`; decay is an update."""
    quantities = [*facts["families"][0]["levels"], *(f"decay, {kind}" for kind in _CLASSES)]
    return {
        quantity: [_cell(facts, column, quantity) for column in columns(facts)]
        for quantity in quantities
    }


_KINDS = ("init", "update")
_CLASSES = ("matrix", "vector")


def _cell(facts: Facts, column: str, quantity: str) -> Cell | None:
    family, kind = column.split("/")
    name = f"{column}/{quantity}"
    if quantity.startswith("decay, "):
        if kind == "init":
            return None
        name = f"{family}/decay/{quantity.removeprefix('decay, ')}"
    if name not in facts["slopes"]:
        return None
    return Cell(_signed(facts["slopes"][name]), name in facts["theory"], name in facts["wrong"])


def _signed(slope: float | None) -> str:
    # Rounded first: minus nothing is nothing.
    return "none" if slope is None else f"{round(slope, 2) + 0.0:+.2f}"


def write_check_page(path: Path, facts: Facts) -> Path:
    """Write the page.

    Args:
        path: of the page.
        facts: what `CheckResult.to_json` gives.

    Raises:
        MissingExtraError: matplotlib or jinja2 is not installed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_page(
        path,
        "coordinates.html",
        title="Coordinate check",
        folder=path.parent,
        lede=_lede(facts),
        facts=facts,
        columns=columns(facts),
        rows=rows(facts),
        families=[
            (AXES[family["name"]], [_chart(facts, family, kind) for kind in family["levels"]])
            for family in facts["families"]
        ],
        steps=len(next(iter(facts["families"][0]["updates"].values()))[0]),
    )


def _lede(facts: Facts) -> list[str]:
    judged, wrong = len(facts["theory"]), len(facts["wrong"])
    if not wrong:
        verdict = f"Passed: all {judged} slopes are within {facts['tolerance']:g} of theory's."
    else:
        verdict = (
            f"Failed: {wrong} of {judged} slopes are further than {facts['tolerance']:g} from "
            "theory's."
        )
    sizes = [f"{size:g}" for size in facts["families"][0]["sizes"]]
    return [verdict, f"Models of width {', '.join(sizes)} took the same first steps."]


def _chart(facts: Facts, family: Facts, kind: str) -> Chart:
    name = family["name"]
    slopes = [f"{each} {_signed(facts['slopes'][f'{name}/{each}/{kind}'])}" for each in _KINDS]
    return chart(
        f"{name}-{kind}",
        (4.6, 2.7),
        f"Line chart of {kind} over {AXES[name]}, at init and its change after each step.",
        partial(
            _draw,
            sizes=family["sizes"],
            levels=family["levels"][kind],
            updates=family["updates"][kind],
            label=AXES[name],
        ),
        f"{kind}: {', '.join(slopes)}",
    )


def _draw(
    axes: Any,
    sizes: Sequence[float],
    levels: Sequence[Sequence[float]],
    updates: Sequence[Sequence[float]],
    label: str,
) -> None:
    from matplotlib.ticker import FixedLocator, LogLocator, NullLocator

    axes.plot(sizes, [each[0] for each in levels], color=INK, linestyle="--", marker="o", ms=3)
    steps = len(updates[0])
    for step in range(steps):
        shade = 0.25 + 0.75 * (step + 1) / steps
        values = [each[step] for each in updates]
        axes.plot(sizes, values, color=STAGE_COLOURS[0], alpha=shade, marker="o", ms=3)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    # A decade at least, so that what is level looks level.
    low, high = axes.get_ylim()
    spread = max(1.0, (10.0 / (high / low)) ** 0.5)
    axes.set_ylim(low / spread, high * spread)
    axes.xaxis.set_major_locator(FixedLocator(list(sizes)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_xlabel(label)
    axes.set_ylabel("mean |x|", color=MUTED)
