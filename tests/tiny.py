"""A tiny model and runs of it that take a second."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

import teleflm.training.loop as loop_module
from teleflm.checkpoint.load import checkpoints, find_checkpoint, load_checkpoint
from teleflm.config.model import ModelConfig
from teleflm.config.run import RunConfig, resolve_run
from teleflm.data.loader import Loader
from teleflm.data.windows import Rows
from teleflm.files import read_jsonl
from teleflm.model.batch import Batch
from teleflm.training.hooks.base import Hook
from teleflm.training.learner import Learner
from teleflm.training.run import Run, StepRecord

FIELDS: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "output_mult": 0.7,
    "vector_init_std": 0.05,
}
MODEL = ModelConfig.model_validate({**FIELDS, "head_dim": 8, "vocab_size": 40})


def run_fields(store: Path, run_dir: Path, **sections: Any) -> dict[str, Any]:
    """RUN.yaml as a mapping: 6 steps in fp32; `sections` are laid over its sections."""
    fields: dict[str, Any] = {
        "run_dir": str(run_dir),
        "model": dict(FIELDS),
        "seed": 3,
        "data": {"path": str(store), "sequence_length": 16},
        "training": {"steps": 6, "global_batch": 4, "dtype": "fp32"},
        "optimizer": {"learning_rate": 2e-3, "matrix_learning_rate": 2e-4},
        "schedule": {"warmup_steps": 2},
        "checkpoint": {"every": 2, "keep": 3},
        "evaluation": {"every": 3, "tokens": 200, "prompts": ["第1回"], "sample_tokens": 4},
    }
    for key, value in sections.items():
        merge = isinstance(value, dict) and isinstance(fields.get(key), dict)
        fields[key] = {**fields[key], **value} if merge else value
    return fields


def run_config(store: Path, run_dir: Path, **sections: Any) -> RunConfig:
    """The same, resolved; its vocabulary is still open."""
    return resolve_run(run_fields(store, run_dir, **sections), "tiny run")


def write_run(path: Path, fields: dict[str, Any]) -> Path:
    """Write a RUN.yaml."""
    path.write_text(yaml.safe_dump(fields, allow_unicode=True), encoding="utf-8")
    return path


def assert_same_run(one: Path, other: Path) -> None:
    """Both run folders end in the same bits, by the same losses."""
    (manifest, state), (expected_manifest, expected) = (
        load_checkpoint(find_checkpoint(folder)) for folder in (one, other)
    )
    assert manifest.step == expected_manifest.step
    for field in ("weights", "exp_avg", "exp_avg_sq"):
        for name, tensor in getattr(expected, field).items():
            assert torch.equal(getattr(state, field)[name], tensor), (field, name)
    assert trajectory(one) == trajectory(other)
    for name in ("evaluation.jsonl", "samples.jsonl"):
        assert read_jsonl(one / name) == read_jsonl(other / name)


def cut_back(run: Path, to: Path, step: int) -> Path:
    """A copy of `run` as a crash after the checkpoint of `step` leaves it: later metrics too."""
    shutil.copytree(run, to)
    for folder in checkpoints(to):
        if int(folder.name.removeprefix("step-")) > step:
            shutil.rmtree(folder)
    return to


def trajectory(run_dir: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without what depends on the clock."""
    clock = ("tokens_per_second", "mfu")
    lines = read_jsonl(run_dir / "metrics.jsonl")
    return [{key: line[key] for key in line if key not in clock} for line in lines]


def poison(monkeypatch: pytest.MonkeyPatch, steps: set[int], what: str = "gradient") -> None:
    """Put a NaN into the loss or one gradient of the updates from these steps."""
    accumulate, train_step = Learner.accumulate, loop_module.train_step

    def poisoned(learner: Learner, batch: Batch) -> Tensor:
        loss = accumulate(learner, batch)
        if what == "loss":
            return loss * math.nan
        learner.engine.shards[-1].gradient[3] = math.inf
        return loss

    def step_of(*args: Any, step: int, **more: Any) -> Any:
        with monkeypatch.context() as patch:
            if step in steps:
                patch.setattr(Learner, "accumulate", poisoned)
            return train_step(*args, step=step, **more)

    monkeypatch.setattr(loop_module, "train_step", step_of)


def other_text(monkeypatch: pytest.MonkeyPatch, batches: set[int]) -> None:
    """All text is one word over and over, but for these batches of the run, which are noise."""

    def batch(loader: Loader, step: int, rank: int = 0, ranks: int = 1) -> Any:
        number = loader._first_row(step) // 4
        rows = np.full((4, 17), 7, np.int64)
        noise = np.random.default_rng(number).integers(300, size=(4, 17))
        mine = np.split(noise if number in batches else rows, ranks)[rank]
        return Rows(mine[:, :-1], mine[:, 1:], None)

    monkeypatch.setattr(Loader, "batch", batch)


class At(Hook):
    """Calls `action` after the run's own step `step`."""

    def __init__(self, step: int, action: Callable[[], object]) -> None:
        self._step, self._action = step, action

    def on_step(self, run: Run, record: StepRecord) -> None:
        if run.own_steps == self._step:
            self._action()
