"""SWEEP.yaml: what a dimension may be, and what is refused before anything is trained."""

from pathlib import Path
from typing import Any

import pytest

from teleflm.config.base import build, read_yaml, write_yaml
from teleflm.config.sweep import Dimension, SweepConfig, load_sweep
from teleflm.errors import ConfigError
from tests.tuning.sweeping import SPACE, sweep_fields, write_sweep

PLACE = Path("store")


@pytest.mark.parametrize(
    ("dimension", "message"),
    [
        ({"low": 2.0, "high": 1.0}, r"space\.k: low 2\.0 is above high 1\.0; swap them"),
        ({"low": 1.0, "high": 1.0}, r"space\.k: low and high are both 1\.0; set the key in run"),
        ({"low": 0.0, "high": 1.0, "log": True}, r"a range with log begins above 0 \(low is 0\.0"),
        ({"low": 1.0}, "a range has low and high; or give choices"),
        ({}, "a range has low and high; or give choices"),
        ({"choices": []}, "choices are empty"),
        ({"choices": [[1], [1]]}, "name a value twice"),
        ({"choices": [1], "low": 0.0}, "give choices, or low and high, not both"),
        ({"low": 1.0, "hihg": 2.0}, r"unknown key 'space\.k\.hihg'; did you mean 'space\.k\.high'"),
    ],
)
def test_a_dimension_that_is_none(dimension: dict[str, Any], message: str) -> None:
    fields = sweep_fields(PLACE, Path("s"), space={"k": dimension})
    with pytest.raises(ConfigError, match=message):
        build(SweepConfig, fields, "SWEEP.yaml")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"trials": None}, "trials is missing"),
        ({"space": {}}, "space"),
        ({"sampler": "tpee"}, "sampler: Input should be 'tpe', 'random' or 'grid'"),
        ({"sampler": "grid"}, r"space\.optimizer\.matrix_learning_rate: a grid needs its steps"),
        ({"seeds": [1, 1]}, r"seeds \[1, 1\]: name at least one, and none twice"),
        ({"seeds": []}, "name at least one"),
        ({"space": {"seed": {"choices": [1, 2]}}}, r"space\.seed: give seeds instead"),
        ({"space": {"data.path": {"choices": ["a", "b"]}}}, "on other text a loss cannot be"),
        (
            {"space": {"data": {"choices": [{"path": "a"}]}}},
            r"space\.data: .* data\.path: on other",
        ),
        (
            {"space": {"data.path.en": {"choices": ["a"]}}},
            r"space\.data\.path\.en: .* on other text",
        ),
        ({"space": {"evaluation": {"choices": [{"tokens": 9}]}}}, r"evaluation\.tokens: on other"),
        (
            {"space": {**SPACE, "optimizer": {"choices": [{"eps": 1e-8}]}}},
            r"space\.optimizer\.\w+ and space\.optimizer set the same",
        ),
        ({"workrs": 2}, "unknown key 'workrs'; did you mean 'workers'"),
    ],
)
def test_a_sweep_that_makes_no_sense(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(SweepConfig, sweep_fields(PLACE, Path("s"), **fields), "SWEEP.yaml")


def test_points_of_a_range() -> None:
    log = Dimension(low=1e-3, high=8e-3, log=True, steps=4)
    assert log.points(whole=False) == (1e-3, 2e-3, 4e-3, 8e-3)
    assert Dimension(low=0.0, high=1.0, steps=3).points(whole=False) == (0.0, 0.5, 1.0)
    assert Dimension(low=1, high=3, steps=5).points(whole=True) == (1, 2, 3)
    assert Dimension(low=1e-3, high=8e-3).points(whole=False) is None


def test_a_narrow_range_keeps_its_values_apart() -> None:
    narrow = Dimension(low=10_000.1, high=10_000.4)
    assert len({narrow.rounded(10_000.1 + 0.3 * k / 200) for k in range(201)}) > 100
    assert narrow.rounded(10_000.39999) == 10_000.4
    assert Dimension(low=1e-4, high=1e-2, log=True).rounded(0.00123456) == 0.001235
    points = Dimension(low=0.99994, high=1.00004, steps=3).points(whole=False)
    assert points == (0.99994, 0.99999, 1.00004)


def test_the_run_may_be_a_file_beside_it(tmp_path: Path) -> None:
    fields = sweep_fields(PLACE, tmp_path / "s")
    write_sweep(tmp_path / "run.yaml", {**fields["run"], "run_dir": "elsewhere"})
    path = write_sweep(tmp_path / "sweep.yaml", {**fields, "run": "run.yaml"})
    config = load_sweep(path, ["run.training.steps=7", "seeds=3"])
    assert config.run["training"]["steps"] == 7
    assert "run_dir" not in config.run
    assert config.run_seeds == (3, 4, 5)
    write_sweep(path, {**fields, "run": {**fields["run"], "run_dir": "x"}})
    with pytest.raises(ConfigError, match=r"run\.run_dir is set by the sweep itself"):
        load_sweep(path)


def test_ranges_are_set_in_the_file(tmp_path: Path) -> None:
    path = write_sweep(tmp_path / "sweep.yaml", sweep_fields(PLACE, tmp_path / "s"))
    for override in ("space.optimizer.eps.low=1e-9", "space.optimizer.eps={low: 1e-9, high: 1e-6}"):
        with pytest.raises(ConfigError, match=r"a range is set in the file, .*sweep\.yaml; on the"):
            load_sweep(path, [override])
    config = load_sweep(path, ["space={optimizer.eps: {low: 1e-9, high: 1e-6}}"])
    assert config.space == {"optimizer.eps": Dimension(low=1e-9, high=1e-6)}


def test_it_reads_back_as_it_was_written(tmp_path: Path) -> None:
    space = {**SPACE, "training.steps": {"low": 4, "high": 8, "steps": 3}}
    config = build(SweepConfig, sweep_fields(PLACE, tmp_path, space=space), "SWEEP.yaml")
    write_yaml(tmp_path / "sweep.yaml", config)
    assert build(SweepConfig, read_yaml(tmp_path / "sweep.yaml"), "again") == config
