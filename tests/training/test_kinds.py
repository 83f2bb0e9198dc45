"""A run that grows a model whose layers are of several kinds computes with those it grew to."""

from pathlib import Path
from typing import Any

import pytest

from teleflm.checkpoint.load import find_checkpoint, load_checkpoint
from teleflm.data.store import TokenStore
from teleflm.training.loop import train
from tests.tiny import assert_same_run, cut_back, run_config, run_fields, trajectory

KINDS = {"sliding_window": 4, "sliding_layers": [1], "nope_layers": [1]}


def test_a_run_grows_keeps_the_function_and_resumes(store: TokenStore, tmp_path: Path) -> None:
    sections: dict[str, Any] = {
        "model": {**run_fields(store.path, tmp_path)["model"], **KINDS},
        "training": {"steps": 3, "dtype": "fp64"},
        "checkpoint": {"every": 1, "keep": 99},
    }
    growth = {"to": {"num_hidden_layers": 3}, "ramp": 2, "place": [0]}
    plain = train(run_config(store.path, tmp_path / "plain", **sections))
    grown = train(run_config(store.path, tmp_path / "grown", **sections, growth=growth))
    model = load_checkpoint(find_checkpoint(grown))[1].model
    # Layer 1 is layer 2 now, and the new one at its place is what every second one is.
    assert model.sliding_layers == model.nope_layers == (1, 2)
    first, expected = (trajectory(run)[0]["loss"] for run in (grown, plain))
    assert first == pytest.approx(expected, rel=1e-12)
    resumed = cut_back(grown, tmp_path / "resumed", 1)
    train(run_config(store.path, resumed, **sections, growth=growth))
    assert_same_run(resumed, grown)
