"""What ranks do in the cases on checkpoints, and what they save."""

import contextlib
import errno
import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from teleflm.checkpoint import writer
from teleflm.checkpoint.load import load_checkpoint
from teleflm.checkpoint.save import save_checkpoint, step_folder
from teleflm.config.model import ModelConfig
from teleflm.errors import CheckpointError, ConfigError, MachineError
from teleflm.growth.event import Event
from teleflm.growth.state import TrainingState
from teleflm.model.axes import parameter_names, parameter_of
from teleflm.model.region import Region
from teleflm.parallel.layout import Layout, regions
from teleflm.training.start import newest_whole_checkpoint

MODEL = ModelConfig(
    # 43 rows: with tp 4 the padded vocabulary leaves the last three ranks without any, with dp 4
    # the chunks are of 11, 11, 11 and 10.
    vocab_size=43,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=4,
    head_dim=4,
    max_position_embeddings=16,
)
LAYOUTS = {
    "tp2·pp2": Layout(tp=2, pp=2),
    "dp4": Layout(dp_shard=4),
    "pp4": Layout(pp=4),
    "tp4": Layout(tp=4),
    "dp2×2": Layout(dp_replicate=2, dp_shard=2),
    "pp2·2 stages·dp2": Layout(pp=2, stages_per_rank=2, dp_shard=2),
    "whole": None,
}
KINDS = ("weights", "exp_avg", "exp_avg_sq")


def held(layout: Layout | None, rank: int) -> dict[str, Region] | None:
    return None if layout is None else regions(layout, MODEL, rank)


def state(rank_regions: dict[str, Region] | None, step: int = 7) -> TrainingState:
    """Every entry of every tensor is another number; only what the regions say is held."""
    generator = torch.Generator().manual_seed(5)
    kinds = {}
    for kind in KINDS:
        shapes = {name: parameter_of(name).shape(MODEL) for name in parameter_names(MODEL)}
        made = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
        if rank_regions is not None:
            made = {name: made[name][region] for name, region in rank_regions.items()}
        kinds[kind] = made
    return TrainingState(
        model=MODEL,
        **kinds,
        adam_steps=7,
        step=step,
        tokens=70,
        sequences=14,
        flops=5,
        lineage=(Event(operator="init", to=MODEL, seed=0),),
        regions=rank_regions,
    )


def assert_same(found: TrainingState, expected: TrainingState) -> None:
    assert found.regions == expected.regions
    for kind in KINDS:
        one, other = getattr(found, kind), getattr(expected, kind)
        assert list(one) == list(other)
        for name in other:
            assert one[name].dtype == other[name].dtype
            assert torch.equal(one[name], other[name]), (kind, name)


def save(folder: Path, layout: Layout | None) -> None:
    save_checkpoint(folder, state(held(layout, dist.get_rank())), None, None)


def save_all(root: Path) -> None:
    for name, layout in LAYOUTS.items():
        save(root / name, layout)


def load_all(root: Path, names: list[str]) -> None:
    for name in names:
        for layout in LAYOUTS.values():
            mine = held(layout, dist.get_rank())
            _, loaded = load_checkpoint(root / name, mine)
            assert_same(loaded, state(mine))


def refused(action: Callable[[], object], kind: type[Exception]) -> str:
    try:
        action()
    except kind as error:
        return str(error)
    raise AssertionError("nothing was raised")


def save_on_a_full_disk(folder: Path, full: int) -> str:
    def write(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.MonkeyPatch.context() as patch:
        if dist.get_rank() == full:
            patch.setattr(writer, "write_file", write)
        made = state(held(LAYOUTS["dp4"], dist.get_rank()))
        return refused(lambda: save_checkpoint(folder, made, None, None, force=True), MachineError)


def save_without_a_layer_norm(folder: Path) -> str:
    mine = regions(Layout(pp=4), MODEL, dist.get_rank())
    mine.pop("model.layers.1.input_layernorm.weight", None)
    return refused(lambda: save_checkpoint(folder, state(mine), None, None), ValueError)


def save_with_a_hole(folder: Path) -> str:
    mine = regions(Layout(dp_shard=4), MODEL, dist.get_rank())
    if dist.get_rank() == 2:
        del mine["lm_head.weight"]
    return refused(lambda: save_checkpoint(folder, state(mine), None, None), ValueError)


def save_existing(folder: Path) -> str:
    return refused(lambda: save(folder, None), CheckpointError)


def load_damaged(folder: Path) -> str:
    mine = held(LAYOUTS["dp4"], dist.get_rank())
    return refused(lambda: load_checkpoint(folder, mine), CheckpointError)


def load_another_model(folder: Path) -> str:
    mine = dict(regions(Layout(), MODEL.model_copy(update={"intermediate_size": 99}), 0))
    return refused(lambda: load_checkpoint(folder, mine), ConfigError)


def newest(run: Path) -> tuple[int, str]:
    """The step that this rank starts from, and what it said."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        found = newest_whole_checkpoint(run, held(LAYOUTS["tp2·pp2"], dist.get_rank()))
    assert found is not None
    return found[1].step, said.getvalue()


def save_in_a_group_of_two(root: Path) -> None:
    """Ranks 2 and 3 save for themselves; the others do not take part."""
    pairs = [dist.new_group([0, 1], backend="gloo"), dist.new_group([2, 3], backend="gloo")]
    rank = dist.get_rank()
    if rank >= 2:
        mine = regions(Layout(dp_shard=2), MODEL, rank - 2)
        save_checkpoint(root / "pair", state(mine), None, None, group=pairs[1])
        assert_same(load_checkpoint(root / "pair", mine, pairs[1])[1], state(mine))


def save_steps(run: Path, steps: list[int]) -> None:
    for step in steps:
        made = state(held(LAYOUTS["dp4"], dist.get_rank()), step)
        save_checkpoint(step_folder(run, step), made, None, None)
