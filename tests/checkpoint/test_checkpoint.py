"""Checkpoints: bit for bit, whole or not there, and damage is named."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file, save_file

import teleflm.checkpoint.save as save_module
from teleflm import files
from teleflm.checkpoint.load import (
    checkpoints,
    find_checkpoint,
    load_checkpoint,
)
from teleflm.checkpoint.manifest import MANIFEST, manifest_digest, problems, read_manifest
from teleflm.checkpoint.open import load, open_state
from teleflm.checkpoint.save import save_checkpoint, step_folder
from teleflm.errors import CheckpointError, MachineError
from teleflm.growth.state import TrainingState
from teleflm.training.start import newest_whole_checkpoint
from tests.growing import fresh_state, trained_state
from tests.tiny import MODEL, run_config


@pytest.fixture(scope="module")
def state() -> TrainingState:
    """In float64 with a history; one weight and one moment hold the awkward bit patterns."""
    made = trained_state(MODEL, steps=2)
    awkward = torch.tensor([-0.0, 5e-324, 1.7e308, float("inf"), float("-inf"), float("nan")])
    made.weights["lm_head.weight"][0, :6] = awkward
    made.exp_avg_sq["model.norm.weight"][:2] = torch.tensor([5e-324, 0.0])
    return made


@pytest.fixture(scope="module")
def original(state: TrainingState, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("checkpoint")
    (root / "tokenizer").mkdir()
    (root / "tokenizer" / "tokenizer.json").write_text('{"a": 1}')
    config = run_config(Path("store"), Path("run"), model=MODEL.model_dump())
    save_checkpoint(root / "step", state, config, root / "tokenizer")
    return root / "step"


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    shutil.copytree(original, tmp_path / "step")
    return tmp_path / "step"


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    kind = {8: torch.int64, 4: torch.int32}[one.element_size()]
    return one.dtype == other.dtype and torch.equal(one.view(kind), other.view(kind))


def test_everything_comes_back_bit_for_bit(state: TrainingState, original: Path) -> None:
    manifest, loaded = load_checkpoint(original)
    for field in ("weights", "exp_avg", "exp_avg_sq"):
        before, after = getattr(state, field), getattr(loaded, field)
        assert list(before) == list(after)
        assert all(same_bits(before[name], after[name]) for name in before), field
    for field in ("model", "adam_steps", "step", "tokens", "sequences", "flops", "lineage"):
        assert getattr(state, field) == getattr(loaded, field)
    assert manifest.config is not None
    assert manifest.config.model == MODEL
    assert len({t.data_ptr() for t in loaded.exp_avg.values()}) == len(loaded.exp_avg)


def test_fp32_stays_fp32(tmp_path: Path) -> None:
    fresh = fresh_state(MODEL)
    save_checkpoint(tmp_path / "a" / "b", fresh, None, None)
    manifest, loaded = load_checkpoint(tmp_path / "a" / "b")
    assert all(same_bits(fresh.weights[n], loaded.weights[n]) for n in fresh.weights)
    assert manifest.config is None
    assert not (tmp_path / "a" / "b" / "tokenizer").exists()


def test_the_manifest_lists_every_file(original: Path) -> None:
    listed = set(read_manifest(original).files)
    there = {str(p.relative_to(original)) for p in original.rglob("*") if p.is_file()}
    assert listed == there - {MANIFEST}
    assert "tokenizer/tokenizer.json" in listed
    assert not list(problems(original))
    assert not [p for p in original.rglob("*") if p.suffix in (".pt", ".pkl", ".bin", ".distcp")]


def test_the_digest_is_of_what_the_manifest_says(folder: Path) -> None:
    before = manifest_digest(folder)
    assert manifest_digest(folder) == before
    (folder / MANIFEST).write_bytes((folder / MANIFEST).read_bytes() + b" ")
    assert manifest_digest(folder) != before


def files_of(folder: Path) -> list[str]:
    return list(read_manifest(folder).files)


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("where", [0, 7, -1, None])
def test_a_flipped_bit_is_found(folder: Path, where: int | None) -> None:
    for name in files_of(folder):
        shutil.copytree(folder, folder.with_name("copy"))
        path = folder.with_name("copy") / name
        flip(path, path.stat().st_size // 2 if where is None else where)
        assert len(list(problems(folder.with_name("copy")))) == 1
        with pytest.raises(CheckpointError, match="checksum differs") as found:
            load_checkpoint(folder.with_name("copy"))
        assert name in str(found.value)
        shutil.rmtree(folder.with_name("copy"))


def test_truncation_and_deletion_are_found(folder: Path) -> None:
    first, *_, last = sorted(files_of(folder))
    os.truncate(folder / first, 3)
    (folder / last).unlink()
    found = "\n".join(problems(folder))
    assert f"{folder / first}: 3 bytes instead of" in found
    assert f"{folder / last}: missing" in found
    with pytest.raises(CheckpointError, match="use another checkpoint"):
        load_checkpoint(folder)


def test_a_stray_tensor_file_is_found(folder: Path) -> None:
    # The reader takes every such file for a part; here it would load other weights unnoticed.
    path = next(folder.glob("*.safetensors"))
    save_file({k: v + 1 for k, v in load_file(path).items()}, folder / "a copy.safetensors")
    assert "a copy.safetensors: not one of" in "\n".join(problems(folder))
    with pytest.raises(CheckpointError, match="a copy"):
        load_checkpoint(folder)


def damage(folder: Path, **changes: Any) -> None:
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    (folder / MANIFEST).write_text(json.dumps({**manifest, **changes}), encoding="utf-8")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"null", b'{"format": 1}'])
def test_a_damaged_manifest_is_named(folder: Path, content: bytes) -> None:
    (folder / MANIFEST).write_bytes(content)
    for reader in (read_manifest, load_checkpoint, lambda f: list(problems(f))):
        with pytest.raises(CheckpointError, match=rf"{MANIFEST}: damaged"):
            reader(folder)


@pytest.mark.parametrize(
    ("key", "value"), [("step", "2"), ("format", 2), ("extra", 1), ("model", {}), ("files", [])]
)
def test_a_manifest_of_another_kind_is_named(folder: Path, key: str, value: Any) -> None:
    damage(folder, **{key: value})
    with pytest.raises(CheckpointError, match=f"{MANIFEST}.*{key}"):
        read_manifest(folder)


def test_a_manifest_of_another_model_is_named(folder: Path) -> None:
    damage(folder, model={**MODEL.model_dump(), "intermediate_size": 50})
    with pytest.raises(CheckpointError, match=r"gate_proj.* \(50, 32\); .*another model"):
        load_checkpoint(folder)
    damage(folder, model={**MODEL.model_dump(), "num_hidden_layers": 3})
    with pytest.raises(CheckpointError, match=r"layers\.2\..*another model"):
        load_checkpoint(folder)


def test_nothing_is_replaced_unasked(folder: Path, state: TrainingState) -> None:
    before = manifest_digest(folder)
    with pytest.raises(CheckpointError, match="--force"):
        save_checkpoint(folder, state, None, None)
    assert manifest_digest(folder) == before
    save_checkpoint(folder, state, None, None, force=True)
    assert manifest_digest(folder) != before
    load_checkpoint(folder)
    assert os.listdir(folder.parent) == ["step"]


def disk_full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "somewhere")


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("place", ["tensors", "manifest", "sync", "rename"])
def test_a_full_disk_leaves_what_was_there(
    folder: Path,
    state: TrainingState,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    force: bool,
) -> None:
    before = manifest_digest(folder)
    if place == "tensors":
        monkeypatch.setattr(dcp, "save", disk_full)
    elif place == "manifest":
        monkeypatch.setattr(save_module, "manifest_of", disk_full)
    elif place == "sync":
        monkeypatch.setattr(files, "sync", disk_full)
    else:
        monkeypatch.setattr(Path, "rename", disk_full)
    target = folder if force else folder.with_name("next")
    with pytest.raises(MachineError, match=r"No space left on device.*run the same command"):
        save_checkpoint(target, state, None, None, force=force)
    assert os.listdir(folder.parent) == ["step"]
    assert manifest_digest(folder) == before
    assert not list(problems(folder))


LIMITED = """
import resource, signal, sys
from pathlib import Path
from teleflm.checkpoint.save import save_checkpoint
from teleflm.errors import MachineError
from tests.growing import fresh_state
from tests.tiny import MODEL
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_480, 20_480))
try:
    save_checkpoint(Path(sys.argv[1]), fresh_state(MODEL), None, None)
except MachineError as error:
    print(error)
"""


def test_a_real_limit_inside_the_library_s_writer(folder: Path) -> None:
    # The library reports it as a BaseException of its own, which no `except Exception` sees.
    target = folder.with_name("next")
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(target)],
        cwd=Path(__file__).parents[2],  # where `tests` can be imported from
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{target}: not written (File too large)" in done.stdout
    assert os.listdir(folder.parent) == ["step"]


def test_a_fault_of_ours_is_not_called_a_full_disk(
    tmp_path: Path, state: TrainingState, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(save_module, "manifest_of", broken)
    with pytest.raises(ZeroDivisionError):
        save_checkpoint(tmp_path / "step", state, None, None)
    assert os.listdir(tmp_path) == []


def test_a_killed_save_is_not_in_the_way(folder: Path, state: TrainingState) -> None:
    left = folder.parent / ".next.partial"
    left.mkdir()
    (left / "junk.safetensors").write_text("x")
    save_checkpoint(folder.parent / "next", state, None, None)
    assert sorted(os.listdir(folder.parent)) == ["next", "step"]
    assert not list(problems(folder.parent / "next"))


def run_with(folder: Path, steps: list[int]) -> Path:
    for step in steps:
        shutil.copytree(folder, step_folder(folder.parent / "run", step))
    return folder.parent / "run"


def test_the_newest_whole_checkpoint(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_with(folder, [5, 10, 20])
    assert [p.name for p in checkpoints(run)] == ["step-00000005", "step-00000010", "step-00000020"]
    assert find_checkpoint(run).name == "step-00000020"
    assert find_checkpoint(step_folder(run, 5)) == step_folder(run, 5)
    found = newest_whole_checkpoint(run)
    assert found is not None
    assert capsys.readouterr().err == ""

    name = files_of(folder)[0]
    flip(step_folder(run, 20) / name, 9)
    (step_folder(run, 10) / MANIFEST).unlink()
    assert newest_whole_checkpoint(run) is not None
    said = capsys.readouterr().err
    assert str(step_folder(run, 20) / name) in said
    assert "step-00000010: not a checkpoint" in said
    assert "step-00000005" not in said

    os.truncate(step_folder(run, 5) / name, 0)
    with pytest.raises(CheckpointError, match="none of its 3 checkpoints is whole"):
        newest_whole_checkpoint(run)


def test_no_checkpoint_is_no_error_but_no_folder_is(tmp_path: Path) -> None:
    assert newest_whole_checkpoint(tmp_path / "run") is None
    with pytest.raises(CheckpointError, match="no such checkpoint or run folder"):
        find_checkpoint(tmp_path / "run")
    with pytest.raises(CheckpointError, match="neither a checkpoint"):
        find_checkpoint(tmp_path)


def test_models_open_by_their_path(folder: Path, tmp_path: Path) -> None:
    source = open_state(run_with(folder, [2]))
    assert (source.name, source.state.step) == ("run/step-00000002", 2)
    assert source.tokenizer is not None
    assert (source.tokenizer / "tokenizer.json").is_file()
    with pytest.raises(CheckpointError, match=r"weights of .* are not finite"):
        load(folder)
    save_checkpoint(tmp_path / "fresh", fresh_state(MODEL), None, None)
    network = load(tmp_path / "fresh")
    assert network.lm_head.weight.dtype == torch.float32
    assert load("nano-52b").config.hidden_size == 128
