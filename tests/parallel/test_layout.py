"""Who holds what: every entry once, balanced stages, and what PyTorch makes of the same layout."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import combinations, product
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from torch.distributed.pipelining.schedules import (
    Schedule1F1B,
    ScheduleInterleaved1F1B,
    ScheduleInterleavedZeroBubble,
)
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import _compute_local_shape_and_global_offset
from torch.testing._internal.distributed.fake_pg import FakeStore

from teleflm.config.model import ModelConfig
from teleflm.config.resolve import resolve_model
from teleflm.config.run import ParallelConfig, PipelineSchedule, TrainingConfig
from teleflm.model.axes import parameter_count, parameter_names, parameter_of
from teleflm.model.region import Region, entries, region_shape, whole
from teleflm.parallel.layout import (
    Layout,
    Place,
    micro_batch_of,
    micro_batches_fit,
    padded_vocabulary,
    regions,
    sharded_dim,
    stage_layers,
    stages_of,
)
from teleflm.parallel.mesh import build_mesh
from teleflm.parallel.recipe import Recipe, build_stages
from tests.tiny import FIELDS

LAYOUTS = st.builds(
    Layout,
    pp=st.integers(1, 3),
    dp_replicate=st.integers(1, 2),
    dp_shard=st.integers(1, 5),
    tp=st.sampled_from([1, 2, 4]),
    stages_per_rank=st.integers(1, 2),
)
MODELS = st.builds(
    lambda **fields: ModelConfig.model_validate({**FIELDS, "num_key_value_heads": 4, **fields}),
    # Neither is a multiple of what data-parallel ranks or padding would like.
    vocab_size=st.integers(1, 600),
    intermediate_size=st.sampled_from([4, 44, 52]),
    num_hidden_layers=st.integers(6, 9),
)


def test_ranks_count_as_the_mesh_does() -> None:
    layout = Layout(pp=2, dp_replicate=3, dp_shard=2, tp=5)
    sizes = (layout.pp, layout.dp_replicate, layout.dp_shard, layout.tp)
    places = [Place(*place) for place in product(*map(range, sizes))]
    assert [layout.place(rank) for rank in range(layout.ranks)] == places


@given(layout=LAYOUTS, model=MODELS)
def test_regions_cover_every_entry_once(layout: Layout, model: ModelConfig) -> None:
    """Once in each copy of the data-parallel shards, and on each tensor-parallel rank where those
    do not split."""
    held = [(layout.place(rank), regions(layout, model, rank)) for rank in range(layout.ranks)]
    for name in parameter_names(model):
        shape = parameter_of(name).shape(model)
        groups: dict[Any, list[Region]] = {}
        for place, mine in held:
            if name in mine:
                tp = None if sharded_dim(parameter_of(name)) is not None else place.tp
                groups.setdefault((place.dp_replicate, tp), []).append(mine[name])
        assert len(groups) in (layout.dp_replicate, layout.dp_replicate * layout.tp)
        for parts in groups.values():
            count = torch.zeros(shape, dtype=torch.int)
            for part in parts:
                count[part] += 1
            assert (count == 1).all(), name


@given(layout=LAYOUTS, model=MODELS)
def test_each_stage_is_on_one_pipeline_rank(layout: Layout, model: ModelConfig) -> None:
    held = {layout.place(rank).pp: stages_of(layout, rank) for rank in range(layout.ranks)}
    assert sorted(stage for stages in held.values() for stage in stages) == list(
        range(layout.stages)
    )
    layers = [layer for stage in stage_layers(model, layout.stages) for layer in stage]
    assert layers == list(range(model.num_hidden_layers))


def test_embedding_is_in_the_first_stage_and_the_head_in_the_last() -> None:
    model = ModelConfig.model_validate({**FIELDS, "num_hidden_layers": 4})
    layout = Layout(pp=2, stages_per_rank=2)
    first, last = (regions(layout, model, rank) for rank in range(2))
    assert "model.embed_tokens.weight" in first.keys() - last.keys()
    assert {"model.norm.weight", "lm_head.weight"} <= last.keys() - first.keys()


def test_the_vocabulary_is_padded_in_memory_only() -> None:
    assert padded_vocabulary(80_000, 1) == 80_000
    assert padded_vocabulary(80_000, 32) == 81_920
    assert padded_vocabulary(81_920, 32) == 81_920
    model = ModelConfig.model_validate({**FIELDS, "vocab_size": 200})
    heads = [regions(Layout(tp=2), model, rank)["lm_head.weight"] for rank in range(2)]
    assert heads == [(slice(0, 128), slice(0, 32)), (slice(128, 200), slice(0, 32))]
    # A rank that has only padding has nothing of the true tensor.
    model = ModelConfig.model_validate({**FIELDS, "vocab_size": 100})
    assert entries(regions(Layout(tp=2), model, 1)["lm_head.weight"]) == 0


def heaviest(model: ModelConfig, counts: tuple[int, ...]) -> int:
    """The parameters of the largest stage, the final norm left out."""
    sizes = {
        name: entries(whole(parameter_of(name).shape(model))) for name in parameter_names(model)
    }
    layer = sum(size for name, size in sizes.items() if ".layers.0." in name)
    loads = [layer * count for count in counts]
    loads[0] += sizes["model.embed_tokens.weight"]
    loads[-1] += sizes["lm_head.weight"]
    return max(loads)


@given(
    layers=st.integers(1, 9),
    stages=st.integers(1, 5),
    vocab_size=st.sampled_from([1, 100, 500, 1000, 3000]),
)
def test_the_heaviest_stage_is_as_light_as_can_be(
    layers: int, stages: int, vocab_size: int
) -> None:
    stages = min(stages, layers)
    fields = {**FIELDS, "num_hidden_layers": layers, "vocab_size": vocab_size}
    model = ModelConfig.model_validate(fields)
    cuts = combinations(range(1, layers), stages - 1)
    splits = [tuple(b - a for a, b in zip((0, *cut), (*cut, layers), strict=True)) for cut in cuts]
    ours = tuple(len(part) for part in stage_layers(model, stages))
    assert ours in splits
    assert heaviest(model, ours) == min(heaviest(model, split) for split in splits)


def test_the_published_job_is_laid_out_at_once() -> None:
    model, layout = resolve_model("tele-flm-1t"), Layout(pp=28, tp=32)
    started = time.process_time()
    held = [regions(layout, model, rank) for rank in range(layout.ranks)]
    assert time.process_time() - started < 1
    assert len(held) == 896
    assert [len(part) for part in stage_layers(model, 28)] == [5] * 28
    once = sum(
        entries(region)
        for rank, mine in enumerate(held)
        for name, region in mine.items()
        if sharded_dim(parameter_of(name)) is not None or layout.place(rank).tp == 0
    )
    assert once == parameter_count(model)


SCHEDULES: dict[PipelineSchedule, Any] = {
    "1f1b": Schedule1F1B,
    "interleaved": ScheduleInterleaved1F1B,
    "zero_bubble": ScheduleInterleavedZeroBubble,
}


def torch_takes(count: int, layout: Layout, schedule: PipelineSchedule) -> bool:
    """Whether PyTorch makes a schedule of stages that compute nothing."""
    stages = [
        SimpleNamespace(
            stage_index=index,
            num_stages=layout.stages,
            group_size=layout.pp,
            group_rank=0,
            is_first=index == 0,
            is_last=index == layout.stages - 1,
            has_backward=True,
            submod=None,
        )
        for index in range(0, layout.stages, layout.pp)
    ]
    try:
        SCHEDULES[schedule](
            stages[0] if schedule == "1f1b" else stages, count, loss_fn=lambda output, _: output
        )
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_micro_batches_fit_where_pytorch_takes_them(schedule: PipelineSchedule) -> None:
    for pp, stages_per_rank in product((2, 3, 4), (1,) if schedule == "1f1b" else (1, 2, 3)):
        layout = Layout(pp=pp, stages_per_rank=stages_per_rank)
        # With fewer than ranks PyTorch would go on, and some ranks would have nothing to do.
        assert not any(micro_batches_fit(count, layout, schedule) for count in range(pp))
        for count in range(pp, 20):
            expected = torch_takes(count, layout, schedule)
            assert micro_batches_fit(count, layout, schedule) == expected, (layout, count)


def test_the_micro_batch_is_the_largest_that_the_schedule_takes() -> None:
    def micro(batch: int, schedule: PipelineSchedule, given: int | None = None) -> int:
        training = TrainingConfig(steps=1, global_batch=batch, micro_batch=given)
        return micro_batch_of(training, Layout(pp=4, dp_shard=2), schedule)

    assert micro(32, "1f1b") == 4
    assert micro(32, "1f1b", given=2) == 2
    # 18 sequences a rank: 6 micro-batches of 3, as 2 × 9 gives fewer than there are ranks.
    assert micro(36, "1f1b") == micro(36, "interleaved") == 3
    # 10 make 5 of 2 in one round; of 14, two rounds of 7 take the place of none that divides.
    assert micro(20, "interleaved") == 2
    training = TrainingConfig(steps=1, global_batch=20)
    assert micro_batch_of(training, Layout(dp_shard=2), "1f1b") == 10


@contextmanager
def fake_ranks(rank: int, ranks: int) -> Iterator[None]:
    """One of many ranks, the others imagined: what is sent arrives nowhere."""
    dist.init_process_group("fake", rank=rank, world_size=ranks, store=FakeStore())
    try:
        yield
    finally:
        dist.destroy_process_group()


UNEVEN = ModelConfig.model_validate(
    # 5 does not divide among 2 or 3 data-parallel ranks, 2 × 257 rows lie in 3 × 256 with padding.
    {
        **FIELDS,
        "hidden_size": 36,
        "head_dim": 10,
        "intermediate_size": 44,
        "num_hidden_layers": 5,
        "vocab_size": 514,
    }
)


@pytest.mark.parametrize(
    "layout",
    [
        Layout(dp_shard=7),
        Layout(dp_shard=40),
        Layout(dp_replicate=2, dp_shard=3),
        Layout(dp_shard=3, tp=2),
        Layout(pp=2, dp_replicate=2, dp_shard=3, tp=2),
        Layout(pp=2, dp_shard=3, tp=2, stages_per_rank=2),
    ],
    ids=str,
)
def test_regions_are_what_pytorch_makes_of_the_layout(layout: Layout) -> None:
    training = TrainingConfig(steps=1, global_batch=layout.dp, dtype="fp32")
    recipe = Recipe(ParallelConfig(), training, torch.float32)
    for rank in range(layout.ranks):
        expected = regions(layout, UNEVEN, rank)
        with fake_ranks(rank, layout.ranks):
            mesh = build_mesh(layout, rank, torch.device("cpu"))
            stages = build_stages(UNEVEN, mesh, recipe)
            made = dict(p for stage in stages for p in stage.network.named_parameters())
            assert made.keys() == expected.keys()
            for name, parameter in made.items():
                assert isinstance(parameter, DTensor)
                region = region_of(parameter, parameter_of(name).shape(UNEVEN), mesh.place)
                assert region_shape(region) == region_shape(expected[name]), (rank, name)
                # Where nothing is held, PyTorch has no say in where it starts.
                assert entries(region) == 0 or region == expected[name], (rank, name)


def region_of(parameter: DTensor, shape: tuple[int, ...], place: Place) -> Region:
    """What a rank's part of a padded tensor is of the true one."""
    mesh = parameter.device_mesh
    assert mesh.mesh_dim_names is not None
    # PyTorch keeps meshes, so that in this process the mesh's own coordinate is an earlier rank's.
    coordinate = [getattr(place, axis) for axis in mesh.mesh_dim_names]
    sizes, offsets = _compute_local_shape_and_global_offset(
        parameter.shape, mesh.shape, coordinate, parameter.placements
    )
    assert sizes == tuple(parameter.to_local().shape)
    return tuple(
        slice(min(offset, size), min(offset + length, size))
        for offset, length, size in zip(offsets, sizes, shape, strict=True)
    )
