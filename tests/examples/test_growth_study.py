"""The growth study compares what it says: equal FLOPs, and its table is the documentation's."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from examples.growth_study import study
from examples.growth_study.table import flops_at, tables
from teleflm.checkpoint.load import load_checkpoint

ROOT = Path(__file__).parents[2]
RESULTS: list[dict[str, Any]] = [
    json.loads(line) for line in study.RESULTS.read_text(encoding="utf-8").splitlines()
]


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, store: Any, tmp_path: Path) -> study.Study:
    """A study of a few steps, on the tests' own text."""
    sizes = {"intermediate_size": 24, "num_hidden_layers": 2}
    shapes = {"parent": {"hidden_size": 16, **sizes}, "child": {"hidden_size": 32, **sizes}}
    settings = {"SHAPES": shapes, "VOCABULARY": store.vocab_size, "CONTEXT": 16, "BATCH": 2}
    settings |= {"HEAD_DIM": 8, "SCRATCH": 24, "DECAY": 2, "RESULTS": tmp_path / "results.jsonl"}
    for name, value in settings.items():
        monkeypatch.setattr(study, name, value)
    (tmp_path / "store").symlink_to(store.path)
    return study.Study(tmp_path)


def assert_equal_flops(runs: list[dict[str, Any]]) -> None:
    """Each run's ends are within a step of the share of the full run that they stand for."""
    step = study.BATCH * study.CONTEXT * study.cost("child")
    for run in runs:
        for budget, (flops, _) in zip(run["budgets"], run["ends"], strict=True):
            assert abs(flops - budget * study.SCRATCH * step) <= step, run["arm"]


def test_every_arm_has_the_flops_that_its_column_says(tiny: study.Study) -> None:
    names = ("scratch", "mask", "copy, interleaved")
    arms = {name: study.ARMS[name] for name in names}
    for name, arm in arms.items():
        arms[name] = replace(arm, parent_steps=8) if arm.growth else arm
        tiny.run(name, arms[name], 1)
    assert_equal_flops(tiny.results)
    assert "| copy, interleaved | 1 |" in tables(tiny.results)
    # What is done is not done again.
    study.Study(tiny.out).run("mask", arms["mask"], 1)
    assert len(study.RESULTS.read_text(encoding="utf-8").splitlines()) == len(names)


def test_what_no_option_says_is_done_to_the_grown_state(tiny: study.Study) -> None:
    arm = replace(study.grown("clone", "zero", imbalance=0.1, moments="reset"), parent_steps=8)
    tiny.run("clone, new optimizer", arm, 1)
    state = load_checkpoint(tiny.out / "seed-1" / "clone-new-optimizer-grown")[1]
    assert (state.step, state.adam_steps, state.lineage[-1].imbalance) == (8, 0, 0.1)
    assert not any(tensor.any() for tensor in (*state.exp_avg.values(), *state.exp_avg_sq.values()))


def test_the_published_runs_had_equal_flops() -> None:
    assert_equal_flops([run for run in RESULTS if "rates" not in run])


def test_flops_at_a_loss_are_read_between_points() -> None:
    points = [(100, 6.0), (400, 5.0), (1600, 5.5), (6400, 4.0)]
    assert flops_at(5.5, points) == pytest.approx(200)
    assert flops_at(4.75, points) == pytest.approx(1600 * 2)
    assert flops_at(6.0, points) == 100
    assert flops_at(3.9, points) is None


def test_the_documentation_has_the_table_that_the_command_prints() -> None:
    assert tables(RESULTS) in (ROOT / "docs" / "growth_study.md").read_text(encoding="utf-8")
