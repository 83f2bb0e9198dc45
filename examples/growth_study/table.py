"""The tables of the growth study, from its results."""

from collections.abc import Iterable, Sequence
from math import exp, log
from statistics import mean, stdev
from typing import Any

Result = dict[str, Any]
Point = Sequence[float]
"""(FLOPs, held-out loss)."""

_BUDGETS = {0.5: "½ FLOPs", 0.75: "¾ FLOPs", 1.0: "same FLOPs"}
_HEAD = (
    "seeds",
    "at the start",
    *_BUDGETS.values(),
    "less than scratch",
    "fewer FLOPs, decayed",
    "fewer FLOPs, constant rate",
)


def tables(results: Sequence[Result]) -> str:
    """Markdown: the rates that were tried, and a row an arm."""
    lines = [_row("vector, matrix rate", ["held-out loss"]), "|---" * 2 + "|"]
    for tried in (each for each in results if "rates" in each):
        lines.append(_row("{:g}, {:g}".format(*tried["rates"]), [f"{tried['ends'][-1][1]:.3f}"]))
    arms = dict.fromkeys(each["arm"] for each in results if "rates" not in each)
    lines += ["", _row("arm", _HEAD), "|---" * (len(_HEAD) + 1) + "|"]
    for arm in arms:
        runs = [each for each in results if each["arm"] == arm]
        peers = [_scratch(run, results) for run in runs]
        lines.append(_row(arm, _cells(runs, peers)))
    return "\n".join(lines)


def _row(name: str, cells: Iterable[str]) -> str:
    return "| " + " | ".join([name, *cells]) + " |"


def _scratch(run: Result, results: Sequence[Result]) -> Result:
    """The run that a run is compared with, of the same seed."""
    key = (run["against"], run["seed"])
    return next(each for each in results if (each["arm"], each["seed"]) == key)


def _cells(runs: Sequence[Result], peers: Sequence[Result]) -> list[str]:
    cells = [str(len(runs)), f"{mean(run['curve'][0][1] for run in runs):.3f}"]
    for budget in _BUDGETS:
        ends = [
            end[1]
            for run in runs
            for share, end in zip(run["budgets"], run["ends"], strict=True)
            if share == budget
        ]
        cells.append(_spread(ends) if ends else "")
    if runs == peers:
        return [*cells, "", "1", "1"]
    pairs = list(zip(runs, peers, strict=True))
    cells.append(_spread([peer["ends"][-1][1] - run["ends"][-1][1] for run, peer in pairs]))
    return [*cells, *(_ratio(pairs, key) for key in ("ends", "curve"))]


def _spread(values: Sequence[float]) -> str:
    """Mean and, over seeds, standard deviation."""
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


def _ratio(pairs: Sequence[tuple[Result, Result]], key: str) -> str:
    """How many times fewer FLOPs take a run to the last loss of scratch; geometric mean and range
    over seeds. `≥` where one was there at its first point, `–` where one never was."""
    ratios, is_bound = [], False
    for run, peer in pairs:
        flops, loss = peer[key][-1]
        points = [point for point in run[key] if point[0]]
        reached = flops_at(loss, points)
        if reached is None:
            return "–"
        is_bound |= points[0][1] <= loss
        ratios.append(flops / reached)
    middle = "≥ " * is_bound + f"{exp(mean(map(log, ratios))):.2f}"
    return middle + (f" ({min(ratios):.2f} to {max(ratios):.2f})" if len(ratios) > 1 else "")


def flops_at(loss: float, points: Sequence[Point]) -> float | None:
    """The FLOPs at which a run first has this loss, linear in their logarithm between points; those
    of the first point where it is below already, None where no point is."""
    before: Point | None = None
    for point in points:
        if point[1] <= loss:
            if before is None:
                return point[0]
            share = (before[1] - loss) / (before[1] - point[1])
            return exp(log(before[0]) + share * (log(point[0]) - log(before[0])))
        before = point
    return None
