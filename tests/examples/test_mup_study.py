"""The µP study says what its runs found, and what it runs is what it says."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from examples.mup_study import study
from examples.mup_study.table import bests, curves, lowest, tables, valley

ROOT = Path(__file__).parents[2]
RESULTS: list[dict[str, Any]] = [
    json.loads(line) for line in study.RESULTS.read_text(encoding="utf-8").splitlines()
]


def test_the_documentation_has_the_table_that_the_command_prints() -> None:
    assert bests(RESULTS) in (ROOT / "docs" / "tuning.md").read_text(encoding="utf-8")


def test_every_trial_has_one_result() -> None:
    trials = [tuple(each[name] for name in study.Trial.__dataclass_fields__) for each in RESULTS]
    assert sorted(map(str, trials)) == sorted(
        str((t.parametrization, t.width, t.matrix_rate, t.vector_rate, t.seed, t.growth))
        for t in study.trials(3)
    )


def test_the_best_rate_stays_under_mup_and_moves_without() -> None:
    found = curves(RESULTS, "matrix_rate", None)
    best = {
        kind: [lowest(found[kind, width]) for width in study.WIDTHS] for kind in ("mup", "standard")
    }
    # At most one step of the grid; three steps without.
    assert max(best["mup"]) <= 2 * min(best["mup"])
    assert best["standard"][0] == pytest.approx(8 * best["standard"][-1])
    assert all(a >= b for a, b in pairwise(best["standard"]))


def test_a_valley_lies_between_points() -> None:
    curve = {2.0**k: [(k - 0.25) ** 2, (k - 0.25) ** 2] for k in range(-2, 3)}
    assert lowest(curve) == 1.0
    assert valley(curve) == pytest.approx(2**0.25)
    assert valley({rate: [rate] for rate in (1.0, 2.0, 4.0)}) == 1.0


def test_a_trial_runs_from_scratch_and_grown(
    store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"LAYERS": 1, "CONTEXT": 16, "BATCH": 2, "STEPS": 8, "WARMUP": 2, "RAMP": 2}
    for name, value in settings.items():
        monkeypatch.setattr(study, name, value)
    trials = [study.Trial("standard", 32, 1e-3, 1e-2, 1), study.Trial("mup", 32, 1e-3, 1e-2, 1)]
    trials.append(study.Trial("mup", 32, 1e-3, 1e-2, 1, "clone"))
    found = [study.run(trial, Path(store.path), tmp_path) for trial in trials]
    assert len({each["held_out"] for each in found}) == 3
    lines = (tmp_path / "mup-32-0.001-0.01-1-clone" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [5, 6, 7, 8]
    assert "Grown by clone" in tables(RESULTS)
