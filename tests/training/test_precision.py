"""A run's precision: settled at its start, kept when it goes on, changed on request."""

from pathlib import Path
from typing import Any

import pytest
import yaml

import teleflm.training.precision as module
from teleflm.checkpoint.load import find_checkpoint, load_checkpoint
from teleflm.config.run import Precision, RunConfig
from teleflm.data.store import TokenStore
from teleflm.errors import ConfigError
from teleflm.files import read_jsonl
from teleflm.training.loop import train
from teleflm.training.precision import in_precision
from tests.tiny import run_config, trajectory

# Two bf16 programs of one function differ so much on shapes as small as these.
ROUNDING = 5e-3


def run_in(store: TokenStore, path: Path, dtype: str, steps: int = 6) -> RunConfig:
    # A constant rate: steps that are yet to come change nothing of those that were.
    schedule = {"kind": "wsd", "warmup_steps": 2, "decay_fraction": 0.0}
    return run_config(
        store.path, path, training={"dtype": dtype, "steps": steps}, schedule=schedule
    )


def machine(monkeypatch: pytest.MonkeyPatch, fast: Precision) -> None:
    """From now on this machine computes that fast."""
    monkeypatch.setattr(module, "fast_precision", lambda device: fast)
    monkeypatch.setattr(module, "slowness_of_bf16", lambda device: 126.0)


def saved(run: Path) -> tuple[str, list[tuple[Any, ...]]]:
    """The newest checkpoint's precision, and what its lineage says of precisions."""
    manifest, _ = load_checkpoint(find_checkpoint(run))
    assert manifest.config is not None
    lineage = manifest.lineage
    changes = [(e.step, e.tokens, e.precision) for e in lineage if e.operator == "precision"]
    return manifest.config.training.dtype, changes


def losses(run: Path) -> list[float]:
    return [line["loss"] for line in read_jsonl(run / "metrics.jsonl")]


def test_auto_is_settled_once(
    store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    machine(monkeypatch, "fp32")
    train(run_in(store, run, "auto", steps=4))
    written = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    assert written["training"]["dtype"] == "fp32"
    assert saved(run) == ("fp32", [])
    # On a machine with another taste it goes on as it began.
    machine(monkeypatch, "bf16")
    train(run_in(store, run, "auto"))
    assert saved(run) == ("fp32", [])
    alone = train(run_in(store, tmp_path / "alone", "fp32"))
    assert trajectory(run) == trajectory(alone)


def test_a_run_goes_on_where_its_precision_is_slow(
    store: TokenStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    machine(monkeypatch, "bf16")
    stayed = train(run_in(store, tmp_path / "stayed", "auto"))
    moved = train(run_in(store, tmp_path / "moved", "auto", steps=4))
    assert "slow" not in (told := capsys.readouterr().err) and "times as long" not in told

    machine(monkeypatch, "fp32")
    train(run_in(store, moved, "auto", steps=5))
    told = capsys.readouterr().err
    assert told.count("bf16, whose products take this machine 1.3e+02 times as long") == 1
    assert "it can go on in fp32" in told
    assert saved(moved) == ("bf16", [])
    assert losses(moved) == losses(stayed)[:5]

    train(run_in(store, moved, "fp32"))
    assert "times as long" not in (told := capsys.readouterr().err)
    assert "going on from step 5, in fp32 from here on\n" in told
    assert saved(moved) == ("fp32", [(5, 5 * 64, "fp32")])
    assert losses(moved)[:5] == losses(stayed)[:5]
    assert losses(moved)[5] == pytest.approx(losses(stayed)[5], rel=ROUNDING)
    assert losses(moved)[5] != losses(stayed)[5], "it is computed in another precision"
    lines = read_jsonl(moved / "metrics.jsonl")
    assert [line["tokens"] for line in lines] == [64 * step for step in range(1, 7)]
    # What goes on from there, under auto again, is no further change.
    train(run_in(store, moved, "auto", steps=7))
    assert saved(moved) == ("fp32", [(5, 5 * 64, "fp32")])


def test_a_run_that_is_over_stays_as_it_was(store: TokenStore, tmp_path: Path) -> None:
    run = train(run_in(store, tmp_path / "run", "fp32"))
    written = (run / "config.yaml").read_bytes()
    train(run_in(store, run, "bf16", steps=4))
    assert (run / "config.yaml").read_bytes() == written


def test_master_weights_keep_their_precision(store: TokenStore, tmp_path: Path) -> None:
    run = train(run_in(store, tmp_path / "run", "fp64", steps=2))
    for dtype in ("fp32", "bf16"):
        with pytest.raises(ConfigError, match=r"its run has training\.dtype = 'fp64', this one"):
            train(run_in(store, run, dtype))
    assert saved(run) == ("fp64", [])


def test_a_change_is_told_once(store: TokenStore, tmp_path: Path) -> None:
    before, now = (run_in(store, tmp_path / "run", dtype) for dtype in ("bf16", "fp32"))
    _, state = load_checkpoint(find_checkpoint(train(run_in(store, tmp_path / "run", "fp32", 2))))
    changed = in_precision(state, before, now)
    assert [event.operator for event in changed.lineage] == ["init", "precision"]
    # Rolled back to the checkpoint that it changed at, which itself knows of nothing.
    assert in_precision(changed, before, now) is changed
    # Back again, by a checkpoint that knows of neither: what was last is what it goes on from.
    again = in_precision(changed, before, before)
    assert [event.precision for event in again.lineage] == [None, "fp32", "bf16"]
