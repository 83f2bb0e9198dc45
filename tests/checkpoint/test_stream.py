"""A state that is written piece by piece: whole or not there, and never done twice."""

import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from teleflm.checkpoint import folder, stream
from teleflm.checkpoint.load import load_checkpoint, open_checkpoint
from teleflm.checkpoint.manifest import problems
from teleflm.checkpoint.save import save_checkpoint
from teleflm.checkpoint.stream import state_bytes, write_state
from teleflm.errors import CheckpointError, MachineError
from teleflm.growth.grow import Growth, grow_lazily
from teleflm.growth.state import KINDS, LazyState, TrainingState
from tests.growing import CHILD, PARENT, trained_state


@pytest.fixture(autouse=True)
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "_FILE_BYTES", 8_000)
    monkeypatch.setattr(folder, "_PIECE_BYTES", 3_000)
    monkeypatch.setattr(folder, "AT_ONCE", 1)


@pytest.fixture(scope="module")
def parent() -> TrainingState:
    return trained_state(PARENT, 3)


@pytest.fixture
def grown(parent: TrainingState) -> LazyState:
    return grow_lazily(parent.lazy(), Growth(CHILD, ramp=5, seed=1))


def assert_equal(one: TrainingState, other: TrainingState) -> None:
    assert one.standing() == other.standing()
    for kind in KINDS:
        for name, tensor in other.tensors(kind).items():
            assert torch.equal(one.tensors(kind)[name], tensor), (kind, name)


def interrupted(state: LazyState, after: int) -> LazyState:
    """The state, until so many pieces were read of it."""
    reads = 0

    def read(*what: Any) -> Tensor:
        nonlocal reads
        tensor = state.read(*what)
        reads += tensor.numel() > 0
        if reads > after:
            raise KeyboardInterrupt
        return tensor

    return replace(state, read=read)


def test_it_is_what_was_asked_for(grown: LazyState, tmp_path: Path) -> None:
    told: list[int] = []
    write_state(tmp_path / "out", grown, None, tell=told.append)
    assert sum(told) == state_bytes(grown) and max(told) <= 3_000
    assert len(list((tmp_path / "out").glob("*.safetensors"))) > 10
    assert not list(problems(tmp_path / "out"))
    assert_equal(load_checkpoint(tmp_path / "out")[1], grown.in_memory())
    assert_equal(open_checkpoint(tmp_path / "out")[1].in_memory(), grown.in_memory())


@pytest.mark.parametrize("after", [0, 1, 40, 90])
def test_interrupted_it_goes_on(grown: LazyState, tmp_path: Path, after: int) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        write_state(out, interrupted(grown, after), None)
    assert not out.exists()
    partial = tmp_path / ".out.partial"
    finished = [note.with_suffix(".safetensors") for note in partial.glob("*.json")]
    assert bool(finished) == (after > 1)
    before = {path.name: path.stat().st_mtime_ns for path in finished}
    told: list[int] = []
    write_state(out, grown, None, tell=told.append)
    assert sum(told) == state_bytes(grown)
    for name, moment in before.items():
        assert (out / name).stat().st_mtime_ns == moment, "a finished file is not written again"
    assert not list(problems(out))
    assert_equal(load_checkpoint(out)[1], grown.in_memory())
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_finished_file_that_was_damaged_is_written_again(
    grown: LazyState, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        write_state(out, interrupted(grown, 90), None)
    finished, *_ = (tmp_path / ".out.partial").glob("*.json")
    file = finished.with_suffix(".safetensors")
    damaged = bytearray(file.read_bytes())
    damaged[-1] ^= 1
    file.write_bytes(damaged)
    write_state(out, grown, None)
    assert not list(problems(out))
    assert_equal(load_checkpoint(out)[1], grown.in_memory())


def test_what_another_growth_left_is_not_taken(
    parent: TrainingState, grown: LazyState, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        write_state(tmp_path / "out", interrupted(grown, 60), None)
    other = grow_lazily(parent.lazy(), Growth(CHILD, ramp=5, seed=2))
    write_state(tmp_path / "out", other, None)
    assert_equal(load_checkpoint(tmp_path / "out")[1], other.in_memory())


def test_too_little_room_is_said_before_anything_is_written(
    grown: LazyState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", ["total", "used", "free"])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, 1000))
    with pytest.raises(MachineError, match=r"out: needs 0\.0 GB and 0\.0 GB are free"):
        write_state(tmp_path / "out", grown, None)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_what_is_there_stays(parent: TrainingState, grown: LazyState, tmp_path: Path) -> None:
    out = tmp_path / "out"
    save_checkpoint(out, parent, None, None)
    with pytest.raises(CheckpointError, match="exists"):
        write_state(out, grown, None)
    with pytest.raises(KeyboardInterrupt):
        write_state(out, interrupted(grown, 60), None, force=True)
    assert_equal(load_checkpoint(out)[1], parent)
    write_state(out, grown, None, force=True)
    assert_equal(load_checkpoint(out)[1], grown.in_memory())
