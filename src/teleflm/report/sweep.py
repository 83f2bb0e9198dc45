"""report.html of a sweep, from what `teleflm.tuning.findings` says of it."""

import json
import math
from collections.abc import Sequence
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from teleflm.report.figures import INK, MUTED, STAGE_COLOURS
from teleflm.report.page import Chart, chart, write_page
from teleflm.report.words import decimal

Facts = dict[str, Any]
# Losses above this share of the complete trials have one colour: a few bad ones are far off.
_FULL_COLOUR = 0.75
# Decades below which 1, 2 and 5 may leave an axis with a single tick.
_SHORT = 0.8
# What a surface is drawn through.
_LEAST_POINTS = 6


def write_sweep_report(folder: Path, facts: Facts) -> Path:
    """Write DIR/report.html.

    Raises:
        MissingExtraError: matplotlib or jinja2 is not installed.
    """
    complete = [trial for trial in facts["trials"] if trial["state"] == "complete"]
    drawn = len(complete) > 1
    keys = list(facts["space"])
    return write_page(
        folder / "report.html",
        "sweep.html",
        title=folder.resolve().name,
        folder=folder,
        lede=_lede(facts, complete),
        facts=facts,
        ranked=sorted(facts["trials"], key=lambda t: (t["loss"] is None, t["loss"] or 0.0)),
        one=[_key_chart(facts, complete, key) for key in keys] if drawn else [],
        pairs=[_pair_chart(facts, complete, *pair) for pair in combinations(keys, 2)]
        if drawn
        else [],
        as_text=json.dumps,
    )


def _lede(facts: Facts, complete: Sequence[Facts]) -> list[str]:
    sentences = [f"{len(facts['trials'])} trials, of which {len(complete)} ran to their end."]
    if facts["best"] is not None:
        sentences.append(
            f"The best is trial {facts['best_trial']} with a loss of "
            f"{decimal(facts['best_loss'], 4)} nats per token."
        )
    if facts["noise"]:
        others = len(facts["noise"]["as_good"]) - 1
        sentences.append(
            f"Another seed moves a loss by {decimal(facts['noise']['standard_deviation'], 4)}; "
            f"{others or 'no'} other trial{'s' * (others != 1)} cannot be told apart from the best."
        )
    return sentences


class _Scale:
    """Where a key's values stand on an axis: as they are, or as choices side by side."""

    def __init__(self, facts: Facts, key: str) -> None:
        space = facts["space"][key]
        values = [trial["values"][key] for trial in facts["trials"]]
        numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
        choices = space["choices"]
        self.key = key
        self.choices = None if numbers else [json.dumps(choice) for choice in choices or []]
        evenly = choices is not None and numbers and min(values) > 0
        self.is_log = bool(space["log"]) or (evenly and max(values) > 8 * min(values))
        self.decades = math.log10(max(values) / min(values)) if self.is_log else 0.0

    def at(self, trial: Facts) -> float:
        """Where a trial stands, on a linear axis."""
        value = trial["values"][self.key]
        if self.choices is not None:
            return float(self.choices.index(json.dumps(value)))
        return math.log10(value) if self.is_log else float(value)

    def label(self, axis: Any, name: str) -> None:
        """Write the ticks of a matplotlib axis."""
        from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

        if self.choices is not None:
            axis.set_ticks(range(len(self.choices)), self.choices)
        else:
            round_values = _round_values(self.decades)
            axis.set_major_locator(FixedLocator(round_values) if round_values else MaxNLocator(4))
            axis.set_major_formatter(
                FuncFormatter(lambda v, _: f"{10**v if self.is_log else v:.2g}")
            )
        axis.set_label_text(name.replace("$", r"\$"), color=MUTED)


def _round_values(decades: float) -> list[float]:
    """Logarithms of ticks that few enough of stand on so many decades; none on a short axis."""
    if decades < _SHORT:
        return []
    digits = (1, 2, 5) if decades <= 2 else (1, 3) if decades <= 3 else (1,)
    return [power + math.log10(digit) for power in range(-12, 12) for digit in digits]


def _key_chart(facts: Facts, complete: Sequence[Facts], key: str) -> Chart:
    scale = _Scale(facts, key)
    share = facts["importances"].get(key)
    told = "" if share is None else f", sensitivity {share:.0%}"

    def draw(axes: Any) -> None:
        losses = [trial["loss"] for trial in complete]
        best = losses.index(min(losses))
        places = [scale.at(trial) for trial in complete]
        axes.plot(places, losses, "o", color=STAGE_COLOURS[0], markersize=4.5, alpha=0.7)
        axes.plot(places[best], losses[best], "o", color=STAGE_COLOURS[1], markersize=7)
        margin = 0.05 * (_full(losses) - min(losses))
        if margin:
            axes.set_ylim(min(losses) - margin, _full(losses) + margin)
        axes.set_ylabel("loss", color=MUTED)
        scale.label(axes.xaxis, "")

    alt = f"Loss of each trial over {key}; the best at {facts['best'][key]}."
    return chart(f"key-{key}", (3.6, 2.5), alt, draw, f"{key}{told}")


def _pair_chart(facts: Facts, complete: Sequence[Facts], one: str, other: str) -> Chart:
    x, y = _Scale(facts, one), _Scale(facts, other)
    alt = (
        f"Loss over {one} and {other}, the lowest at {facts['best'][one]} and "
        f"{facts['best'][other]}."
    )
    draw = partial(_draw_pair, complete=complete, x=x, y=y)
    return chart(f"pair-{one}-{other}", (3.6, 3.2), alt, draw)


def _draw_pair(axes: Any, complete: Sequence[Facts], x: _Scale, y: _Scale) -> None:
    losses = np.array([trial["loss"] for trial in complete])
    places = np.array([[x.at(trial), y.at(trial)] for trial in complete])
    low, full = losses.min(), _full(losses.tolist())
    shown = np.minimum(losses, full)
    if _spans(places) and full > low:
        axes.tricontourf(*places.T, shown, levels=np.linspace(low, full, 9), cmap="viridis_r")
    axes.scatter(
        *places.T, c=shown, cmap="viridis_r", vmin=low, vmax=full, s=26, edgecolors=INK,
        linewidths=0.6,
    )  # fmt: skip
    axes.scatter(
        *places[losses.argmin()], s=130, facecolors="none", edgecolors=STAGE_COLOURS[1],
        linewidths=2.2,
    )  # fmt: skip
    axes.grid(visible=False)
    # A filled contour holds an axis to its own edge, which cuts the dots there in two.
    axes.use_sticky_edges = False
    axes.margins(0.06)
    x.label(axes.xaxis, x.key.rpartition(".")[2])
    y.label(axes.yaxis, y.key.rpartition(".")[2])


def _spans(places: Any) -> bool:
    """Whether the points, each once, span a surface."""
    once = np.unique(places, axis=0)
    spread = once - once.mean(axis=0)
    scaled = spread / np.where(np.ptp(once, axis=0) > 0, np.ptp(once, axis=0), 1.0)
    return len(once) >= _LEAST_POINTS and bool(np.linalg.matrix_rank(scaled, tol=1e-6) == 2)


def _full(losses: Sequence[float]) -> float:
    return float(np.quantile(losses, _FULL_COLOUR))
