"""Checkpoints by many ranks: the layout leaves no trace in them, and a fault of one is all's."""

import os
import shutil
import warnings
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import HuggingFaceStorageReader
from torch.torch_version import TorchVersion

from teleflm.checkpoint.load import load_checkpoint
from teleflm.checkpoint.manifest import MANIFEST, problems, read_manifest
from teleflm.checkpoint.save import save_checkpoint, step_folder
from teleflm.parallel.layout import Layout, regions
from tests.distributed.checkpoints import (
    LAYOUTS,
    MODEL,
    assert_same,
    load_all,
    load_another_model,
    load_damaged,
    newest,
    save_all,
    save_existing,
    save_in_a_group_of_two,
    save_on_a_full_disk,
    save_steps,
    save_with_a_hole,
    save_without_a_layer_norm,
    state,
)
from tests.distributed.world import World


@pytest.fixture(scope="module")
def saved(four: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of each layout, and one of a process without a group."""
    root = tmp_path_factory.mktemp("checkpoints")
    four.run(save_all, root)
    save_checkpoint(root / "one process", state(None), None, None)
    return root


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    shutil.copytree(saved / "dp4", tmp_path / "step")
    return tmp_path / "step"


def test_saved_under_any_layout_and_loaded_under_any(four: World, saved: Path) -> None:
    four.run(load_all, saved, [*LAYOUTS, "one process"])


@pytest.mark.parametrize("name", [*LAYOUTS, "one process"])
def test_one_process_loads_them_and_torch_s_own_reader_does(saved: Path, name: str) -> None:
    folder, expected = saved / name, state(None)
    assert not list(problems(folder))
    assert_same(load_checkpoint(folder)[1], expected)
    part = regions(Layout(tp=2, dp_shard=3), MODEL, 4)
    assert_same(load_checkpoint(folder, part)[1], state(part))
    room = {f"exp_avg_sq.{n}": torch.zeros_like(t) for n, t in expected.exp_avg_sq.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.load(room, storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=True)
    for name, tensor in expected.exp_avg_sq.items():
        assert torch.equal(room[f"exp_avg_sq.{name}"], tensor)


def test_what_many_hold_is_written_once_and_by_all_in_turn(saved: Path) -> None:
    bytes_of_all = 3 * 4 * sum(tensor.numel() for tensor in state(None).weights.values())
    for name in LAYOUTS:
        shares = [tensor_bytes(path) for path in (saved / name).glob("*.safetensors")]
        assert len(shares) == 4
        assert sum(shares) == bytes_of_all, name
        if name == "whole":
            assert max(shares) < 1.2 * min(shares)


def tensor_bytes(path: Path) -> int:
    """A safetensors file without its header."""
    data = path.read_bytes()
    return len(data) - 8 - int.from_bytes(data[:8], "little")


def test_the_manifest_says_the_same_of_all_layouts(saved: Path) -> None:
    manifests = [read_manifest(saved / name).model_dump(exclude={"files"}) for name in LAYOUTS]
    assert all(manifest == manifests[0] for manifest in manifests)
    for name in LAYOUTS:
        assert {p.name for p in (saved / name).iterdir()} == {
            MANIFEST,
            *read_manifest(saved / name).files,
        }


@pytest.mark.parametrize("full", [0, 3])
@pytest.mark.parametrize("there", [False, True])
def test_a_full_disk_of_one_is_the_same_error_on_all(
    four: World, copy: Path, full: int, there: bool
) -> None:
    folder = copy if there else copy.with_name("next")
    before = (copy / MANIFEST).read_bytes()
    told = four.run(save_on_a_full_disk, folder, full)
    assert set(told) == {told[0]}
    assert f"{folder}: not written (No space left on device)" in told[0]
    assert os.listdir(copy.parent) == ["step"]
    assert (copy / MANIFEST).read_bytes() == before
    assert not list(problems(copy))


def test_what_nobody_holds_is_an_error(four: World, tmp_path: Path) -> None:
    told = four.run(save_without_a_layer_norm, tmp_path / "step")
    assert all("exp_avg.model.layers.1.input_layernorm.weight' and 2 others" in t for t in told)
    told = four.run(save_with_a_hole, tmp_path / "step")
    assert all("Failed to validate global plan" in each for each in told)
    # PyTorch 2.11 names it in its log alone.
    if TorchVersion(torch.__version__) >= "2.13":
        assert all("lm_head.weight" in each for each in told)
    assert os.listdir(tmp_path) == []


def test_nothing_is_replaced_unasked(four: World, copy: Path) -> None:
    assert all("exists; give another place" in told for told in four.run(save_existing, copy))
    assert not list(problems(copy))


@pytest.mark.parametrize("damage", ["flip", "cut", "delete", "manifest", "stray"])
def test_damage_is_found_by_all_alike(four: World, copy: Path, damage: str) -> None:
    # In each of the files: one rank reads it, and all say so.
    for name in read_manifest(copy).files:
        broken = copy.with_name("broken")
        shutil.copytree(copy, broken)
        hurt(broken, name, damage)
        told = four.run(load_damaged, broken)
        assert set(told) == {told[0]}
        assert str(broken if damage == "manifest" else broken / name) in told[0]
        shutil.rmtree(broken)


def hurt(folder: Path, name: str, damage: str) -> None:
    path = folder / name
    if damage == "flip":
        data = bytearray(path.read_bytes())
        data[-5] ^= 4
        path.write_bytes(data)
    elif damage == "cut":
        os.truncate(path, path.stat().st_size - 1)
    elif damage == "delete":
        path.unlink()
    elif damage == "manifest":
        (folder / MANIFEST).unlink()
    else:
        shutil.copy(path, f"{path}.copy.safetensors")


def test_all_start_from_the_newest_whole_one(four: World, saved: Path, tmp_path: Path) -> None:
    four.run(save_steps, tmp_path, [1, 2, 3, 4])
    files = {step: list(read_manifest(step_folder(tmp_path, step)).files) for step in (3, 4)}
    # In a file that only one rank needs, and in one that only another needs.
    hurt(step_folder(tmp_path, 4), files[4][0], "flip")
    hurt(step_folder(tmp_path, 3), files[3][-1], "cut")
    before = sorted(tmp_path.rglob("*"))
    answers = four.run(newest, tmp_path)
    assert [step for step, _ in answers] == [2] * 4
    assert [bool(said) for _, said in answers] == [True, False, False, False]
    assert "checksum differs" in answers[0][1]
    assert "bytes instead of" in answers[0][1]
    assert sorted(tmp_path.rglob("*")) == before


def test_regions_of_another_model_are_an_error(four: World, saved: Path) -> None:
    told = four.run(load_another_model, saved / "tp4")
    assert all("its model is not the run's" in each for each in told)


def test_a_group_saves_without_the_others(four: World, tmp_path: Path) -> None:
    four.run(save_in_a_group_of_two, tmp_path)
    assert_same(load_checkpoint(tmp_path / "pair")[1], state(None))
