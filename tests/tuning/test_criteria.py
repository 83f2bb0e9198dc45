"""What a trial is judged by follows from its run folder, and is what it is called."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from teleflm.errors import DivergedError
from teleflm.tuning.criteria import criteria, finished_loss, mean_criteria, tenth_ends, tenths


def run_folder(path: Path, losses: list[Any], norms: list[Any], **faults: int) -> Path:
    path.mkdir()
    rows = [
        {"step": i + 1, "loss": a, "grad_norm": b}
        | ({"fault": "non_finite", "skipped": True} if faults.get("skipped") == i else {})
        for i, (a, b) in enumerate(zip(losses, norms, strict=True))
    ]
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_line_with_noise_has_its_slope_and_its_noise(tmp_path: Path) -> None:
    steps = np.arange(2000)
    noise = np.random.default_rng(0).normal(0, 0.05, steps.size)
    norms = np.exp(1e-3 * steps)
    found = criteria(run_folder(tmp_path / "r", [*(4 - 5e-4 * steps + noise)], [*norms]))
    assert found.slope == pytest.approx(-0.5, abs=0.02)
    assert found.roughness == pytest.approx(0.05, rel=0.05)
    assert found.grad_norm_trend == pytest.approx(1.0)
    assert (found.grad_norm_spikes, found.skips) == (0, 0)


def test_a_bend_is_no_roughness(tmp_path: Path) -> None:
    losses = [4 / math.sqrt(1 + step) for step in range(400)]
    found = criteria(run_folder(tmp_path / "r", losses, [1.0] * 400))
    assert found.roughness == pytest.approx(0, abs=1e-4)
    assert found.slope is not None and found.slope < 0


def test_spikes_skips_and_steps_without_a_loss(tmp_path: Path) -> None:
    norms: list[Any] = [1.0] * 100
    norms[40], norms[70], norms[80] = 4.0, 2.9, None
    losses: list[Any] = [3.0] * 100
    losses[80] = None
    found = criteria(run_folder(tmp_path / "r", losses, norms, skipped=80))
    assert (found.grad_norm_spikes, found.skips) == (1, 1)
    assert found.slope == pytest.approx(0)
    empty = criteria(run_folder(tmp_path / "none", [], []))
    assert mean_criteria([found, empty])["slope"] == pytest.approx(0)
    assert mean_criteria([empty])["slope"] is None


def test_tenths_of_a_run() -> None:
    assert tenths([float(i) for i in range(25)], 100) == {1: 4.5, 2: 14.5}
    assert tenths([1.0, None, 3.0], 10) == {1: 1.0, 2: pytest.approx(math.nan, nan_ok=True), 3: 3.0}
    assert tenth_ends(4) == {1: 2, 2: 5, 3: 7, 4: 10}
    assert tenths([1.0, 2.0, 3.0, 4.0], 4) == {2: 1.0, 5: 2.0, 7: 3.0, 10: 4.0}


def test_the_loss_is_the_held_out_one_or_the_last_tenth_s(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "r", [float(i) for i in range(20)], [1.0] * 20)
    assert finished_loss(run) == 18.5
    (run / "evaluation.jsonl").write_text('{"step": 20, "loss": 2.5}\n')
    assert finished_loss(run) == 2.5
    (run / "evaluation.jsonl").write_text('{"step": 20, "loss": NaN}\n')
    with pytest.raises(DivergedError, match="its loss is nan"):
        finished_loss(run)
