"""The page of a sweep, from findings that were made up."""

import re
from pathlib import Path
from typing import Any

import pytest

from teleflm.report.sweep import _draw_pair, _Scale, write_sweep_report

DIMENSION = {"low": None, "high": None, "log": False, "steps": None, "choices": None}
SPACE = {
    "optimizer.matrix_learning_rate": {**DIMENSION, "low": 1e-4, "high": 1e-1, "log": True},
    "optimizer.betas": {**DIMENSION, "choices": [[0.9, 0.95], [0.9, 0.99]]},
    "schedule.min_ratio": {**DIMENSION, "low": 0.0, "high": 1.0},
}


def trial(number: int, loss: float | None, state: str = "complete") -> dict[str, Any]:
    values = {
        "optimizer.matrix_learning_rate": 10 ** (-4 + number / 4),
        "optimizer.betas": [0.9, 0.99 if number % 2 else 0.95],
        "schedule.min_ratio": (number * 7 % 11) / 11,
    }
    names = ("slope", "roughness", "grad_norm_trend", "grad_norm_spikes", "loss_spikes", "skips")
    reason = "" if state != "diverged" else "loss <nan>, after 5 skipped steps in a row"
    return {
        "number": number,
        "state": state,
        "values": values,
        "loss": loss,
        **dict.fromkeys(names, 0.5 if loss else None),
        "seeds": {},
        "reason": reason,
    }


def facts(trials: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    done = [each for each in trials if each["loss"] is not None]
    best = min(done, key=lambda each: each["loss"], default=None)
    return {
        "space": SPACE,
        "best": best and best["values"],
        "best_trial": best and best["number"],
        "best_loss": best and best["loss"],
        "trials": trials,
        "noise": None,
        "importances": {},
        **more,
    }


def page(tmp_path: Path, found: dict[str, Any]) -> str:
    return write_sweep_report(tmp_path, found).read_text(encoding="utf-8")


def test_surfaces_of_each_pair_and_a_chart_of_each_key(tmp_path: Path) -> None:
    trials = [trial(n, 4 + (n - 6) ** 2 / 20) for n in range(12)]
    effective = {"width": 128, "matrix_learning_rate": 1.25e-3}
    more = {
        "importances": {"optimizer.matrix_learning_rate": 0.7},
        "noise": {"standard_deviation": 0.01, "margin": 0.03, "as_good": [6]},
        "transferred": {"optimizer.matrix_learning_rate": 1e-2},
        "to": "tele-flm-1t",
        "left": ["schedule.min_ratio"],
        "effective": {"proxy": effective, "target": effective},
        "yaml": "model:\n  preset: tele-flm-1t\n",
    }
    text = page(tmp_path, facts([*trials, trial(12, None, "diverged")], **more))
    assert len(re.findall("<svg viewBox", text)) == 3 + 3
    assert "the lowest at 0.0031622776601683" in text
    assert "sensitivity 70%" in text
    assert "Another seed moves a loss by 0.0100; no other trials cannot be told apart" in text
    assert "preset: tele-flm-1t" in text
    assert "loss &lt;nan&gt;, after 5 skipped" in text
    # The best stands first, what has no loss last.
    order = re.findall(r'<tr><th>(\d+)</th><td class="text">(\w+)', text)
    assert (order[0], order[-1]) == (("6", "complete"), ("12", "diverged"))


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([3e-3, 3e-1], ["0.005", "0.01", "0.02", "0.05", "0.1", "0.2"]),
        ([2.5e-4, 0.2], ["0.0003", "0.001", "0.003", "0.01", "0.03", "0.1"]),
        ([2e-6, 3e-2], ["1e-05", "0.0001", "0.001", "0.01"]),
    ],
    ids=["two decades", "three", "four"],
)
def test_a_logarithmic_axis_has_round_values(values: list[float], labels: list[str]) -> None:
    from matplotlib.figure import Figure

    key = "optimizer.matrix_learning_rate"
    found = facts([trial(0, 3.0), trial(1, 3.1)])
    for each, value in zip(found["trials"], values, strict=True):
        each["values"][key] = value
    scale = _Scale(found, key)
    axes = Figure().subplots()
    axes.set_xlim(*(scale.at(each) for each in found["trials"]))
    scale.label(axes.xaxis, "")
    low, high = axes.get_xlim()
    ticks = [place for place in axes.xaxis.get_majorticklocs() if low <= place <= high]
    assert axes.xaxis.get_major_formatter().format_ticks(ticks) == labels


def test_a_surface_does_not_cut_its_outer_dots() -> None:
    from matplotlib.figure import Figure

    trials = [trial(n, 4 + (n - 6) ** 2 / 20) for n in range(12)]
    found = facts(trials)
    x, y = (_Scale(found, key) for key in ("optimizer.matrix_learning_rate", "schedule.min_ratio"))
    axes = Figure().subplots()
    _draw_pair(axes, trials, x, y)
    (left, right), places = axes.get_xlim(), [x.at(each) for each in trials]
    assert left < min(places) - 0.05
    assert max(places) + 0.05 < right


@pytest.mark.parametrize(
    "trials",
    [
        [],
        [trial(0, None, "running")],
        [trial(0, 3.0)],
        [trial(0, 3.0), trial(1, 3.0)],
        [trial(0, 3.0), *(trial(n, 3.5) for n in range(1, 9))],
        [trial(0, 3.0), *(trial(n, 1e9) for n in range(1, 9))],
    ],
    ids=["none", "running", "one", "alike", "flat", "far"],
)
def test_sweeps_that_have_only_begun(tmp_path: Path, trials: list[dict[str, Any]]) -> None:
    text = page(tmp_path, facts(trials))
    assert f"{len(trials)} trials, of which" in text

    assert "nan" not in re.sub(r"<svg.*?</svg>", "", text, flags=re.S)
