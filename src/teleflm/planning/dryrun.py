"""A dry run: one rank's step of a job, at full size, by the code that trains it."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context

import torch
import torch.distributed as dist
from torch import Tensor

from teleflm.config.run import RunConfig
from teleflm.errors import ConfigError
from teleflm.growth.event import Event
from teleflm.growth.grow import Growth, events_of
from teleflm.growth.state import KINDS, Standing, TrainingState
from teleflm.model.batch import Batch
from teleflm.model.region import region_shape
from teleflm.parallel.choose import layout_for
from teleflm.parallel.layout import Layout, micro_batch_of, regions, stage_layers, stages_of
from teleflm.parallel.mesh import AXES, Mesh, build_mesh
from teleflm.planning.alike import NotAlikeError, counted_alike
from teleflm.planning.counting import Counting, Traffic
from teleflm.planning.fake import FakeTensors, fake_world
from teleflm.training.faults import Verdict
from teleflm.training.learner import Learner
from teleflm.training.prepare import engine_of, master_dtype
from teleflm.training.step import train_step


@dataclass(frozen=True)
class DryRun:
    """What one rank does in a step.

    Attributes:
        rank: which one.
        layout: of all.
        stage_layers: the layers that it has, by stage.
        parameters: that it holds, with the vocabulary's padding.
        kept: bytes from step to step, by kind: parameters, gradients, optimizer.
        peak: the most bytes at any moment.
        flops: of matrix products and attention, by operator.
        collectives: by mesh axis and kind.
        micro_batches: in a step.
        run: how many of them were run; the others are as the last ones.
    """

    rank: int
    layout: Layout
    stage_layers: tuple[range, ...]
    parameters: int
    kept: Mapping[str, int]
    peak: int
    flops: Mapping[str, int]
    collectives: Mapping[str, Traffic]
    micro_batches: int
    run: int

    @property
    def activations(self) -> int:
        """Bytes at the peak beyond what is kept: activations, gathered weights, buffers."""
        return self.peak - sum(self.kept.values())


def dry_run(
    config: RunConfig, ranks: int, rank: int, device: str = "cuda", *, every: bool = False
) -> DryRun:
    """Run a step of one rank on tensors without values, and count.

    Of a step with very many micro-batches two shorter ones are run, with the pipeline full in both:
    what the longer one has more, every further micro-batch has. And of a pipeline's passes those
    that are alike are done once, see `counted_alike`. One a process: see `dry_runs`.

    Args:
        config: the run; data.path is not opened.
        ranks, rank: all of the job, and this one.
        device: the kind that it would compute on, `cuda` or `cpu`.
        every: do all passes of all micro-batches, which the above is tested against.

    Raises:
        ConfigError: a layout that cannot be had, or a rank that is not in it.
    """
    layout = layout_for(config, ranks)
    if not 0 <= rank < ranks:
        raise ConfigError(f"rank {rank}: the {ranks} ranks are 0 to {ranks - 1}; give one of them")
    micro = micro_batch_of(config.training, layout, config.parallel.schedule)
    count = config.training.global_batch // layout.dp // micro
    with fake_world(rank, ranks, device) as tensors:
        mesh = build_mesh(layout, rank, torch.device("cpu")) if ranks > 1 else None
        stepped = partial(_stepped, config, layout, rank, mesh, tensors, micro)
        if every:
            return stepped(count, alike=False)
        try:
            return _of_two_forms(partial(stepped, alike=True), layout, rank, count)
        except NotAlikeError:
            return _of_two_forms(partial(stepped, alike=False), layout, rank, count)


def dry_runs(
    config: RunConfig,
    ranks: int,
    which: Sequence[int],
    device: str = "cuda",
    *,
    every: bool = False,
) -> Iterator[DryRun]:
    """`dry_run` of several ranks, each in a process of its own, in their order."""
    # A process group that was left lives on in what PyTorch remembers of layouts. Each process
    # begins as a copy of one that has read the code.
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(os.cpu_count(), mp_context=context, max_tasks_per_child=1) as pool:
        yield from pool.map(partial(dry_run, config, ranks, device=device, every=every), which)


def _of_two_forms(
    stepped: Callable[[int], DryRun], layout: Layout, rank: int, count: int
) -> DryRun:
    """A step of `count` micro-batches, of which `stepped` runs some number."""
    # With so many the pipeline is full: every further one, or round of them, is like the last.
    # PyTorch keeps one that 1F1B sent before its first way back to the step's end, beyond its own.
    ahead = layout.pp - layout.place(rank).pp
    full, more = max(layout.pp + 1, 2 * ahead), 1
    if layout.stages_per_rank > 1:
        full, more = layout.pp * (layout.stages_per_rank + 1), layout.pp
    if count <= full + 2 * more:
        return stepped(count)
    least = full + (count - full) % more
    return _extended(stepped(least), stepped(least + more), count)


def _extended(short: DryRun, longer: DryRun, count: int) -> DryRun:
    """The step with `count` micro-batches, of which two shorter ones tell."""
    times, rest = divmod(count - short.run, longer.run - short.run)
    assert rest == 0

    def at(before: int, after: int) -> int:
        return before + times * (after - before)

    return replace(
        longer,
        peak=at(short.peak, longer.peak),
        flops={name: at(short.flops[name], value) for name, value in longer.flops.items()},
        collectives={
            name: Traffic(
                at(short.collectives[name].count, value.count),
                at(short.collectives[name].bytes, value.bytes),
            )
            for name, value in longer.collectives.items()
        },
        micro_batches=count,
    )


def _stepped(
    config: RunConfig,
    layout: Layout,
    rank: int,
    mesh: Mesh | None,
    tensors: FakeTensors,
    micro: int,
    count: int,
    *,
    alike: bool,
) -> DryRun:
    """One step of `count` micro-batches of `micro` sequences."""
    # Compiled blocks are counted as they are written.
    training = config.training.model_copy(
        update={"global_batch": micro * count * layout.dp, "micro_batch": micro, "compile": False}
    )
    config = config.model_copy(update={"training": training})
    with tensors:
        state = empty_state(config, layout, rank)
        length = config.data.sequence_length + 1
        batch = made_up_batch(config, torch.zeros(micro * count, length, dtype=torch.int64))
    counted, kept = counted_step(config, mesh, state, batch, tensors, alike=alike)
    layers = stage_layers(config.final_model, layout.stages)
    return DryRun(
        rank=rank,
        layout=layout,
        stage_layers=tuple(layers[stage] for stage in stages_of(layout, rank)),
        parameters=kept["parameters"] // master_dtype(config).itemsize,
        kept=kept,
        peak=counted.peak,
        flops=dict(counted.flops),
        collectives=counted.collectives,
        micro_batches=count,
        run=count,
    )


def counted_step(
    config: RunConfig,
    mesh: Mesh | None,
    state: TrainingState,
    batch: Batch,
    tensors: AbstractContextManager[object],
    *,
    alike: bool = False,
) -> tuple[Counting, dict[str, int]]:
    """The first step that training takes from a state, counted; and the bytes that are kept from
    step to step, by kind, as they are at the update.

    Args:
        config: the run.
        mesh: its ranks, None for one process.
        state: of what this rank holds.
        batch: what it reads.
        tensors: what the step runs in, where those are fake.
        alike: whether passes of a pipeline that are alike are done once; of fake tensors only.
    """
    learner = Learner(
        state, config.optimizer, engine=engine_of(config, state.model, mesh, batch.tokens.device)
    )
    kept: dict[str, int] = {}

    def judge(*_: float) -> Verdict:
        kept.update(kept_bytes(learner))
        return Verdict()

    with (
        tensors,
        Counting(axis_names(mesh)) as counted,
        counted_alike(counted) if alike else nullcontext(),
    ):
        counted.add([each for each in (*batch, *kept_tensors(learner)) if each is not None])
        clip = config.optimizer.clip
        train_step(learner, batch, step=0, factor=1.0, clip=clip, judge=judge)
    return counted, kept


def made_up_batch(config: RunConfig, rows: Tensor) -> Batch:
    """Token rows (B, S + 1) as a run reads them; with a document mask each is one text, for which
    the most is computed."""
    tokens, targets = rows[:, :-1].clone(), rows[:, 1:].clone()
    return Batch(tokens, targets, torch.zeros_like(tokens) if config.data.document_mask else None)


def kept_tensors(learner: Learner) -> list[Tensor]:
    """What a learner has in memory from step to step."""
    tensors: list[Tensor] = []
    for network in learner.engine.networks:
        tensors += [buffer for buffer in network.buffers() if buffer is not None]
    for shard in learner.engine.shards:
        tensors += [shard.local, *learner.optimizer.state[shard.local].values()]
    return tensors


def kept_bytes(learner: Learner) -> dict[str, int]:
    """What of them belongs to the weights, once their gradients are there."""
    shards, state = learner.engine.shards, learner.optimizer.state
    moments = [state[shard.local][kind] for shard in shards for kind in ("exp_avg", "exp_avg_sq")]
    return {
        "parameters": sum(shard.local.nbytes for shard in shards),
        "gradients": sum(shard.gradient.nbytes for shard in shards),
        "optimizer": sum(moment.nbytes for moment in moments),
    }


def axis_names(mesh: Mesh | None) -> dict[tuple[int, ...], str]:
    """The mesh axis of each process group, by its ranks; `world` is all of them."""
    if mesh is None:
        return {}
    names = {tuple(range(mesh.layout.ranks)): "world"}
    for axis in AXES:
        names[tuple(dist.get_process_group_ranks(mesh.axes[axis].get_group()))] = axis
    return names


def empty_state(config: RunConfig, layout: Layout, rank: int) -> TrainingState:
    """A state before the run's first step, whose tensors have no values yet.

    A parent to grow from is taken as trained for no step; where its new layers go does not matter.
    """
    model, dtype = config.final_model, master_dtype(config)
    held = regions(layout, model, rank)
    fresh = Event(operator="init", to=config.model, seed=config.seed)
    standing = Standing(config.model, 0, 0, 0, 0, 0, (fresh,))
    if config.growth is not None:
        growth = replace(Growth.of(config.growth, config.seed), place="even")
        for event in events_of(standing, growth):
            standing = standing.with_event(event)
    kinds = {
        kind: {
            name: torch.empty(region_shape(region), dtype=dtype) for name, region in held.items()
        }
        for kind in KINDS
    }
    return TrainingState(
        model=model,
        adam_steps=0,
        step=0,
        tokens=0,
        sequences=0,
        flops=0,
        lineage=standing.lineage,
        regions=held,
        **kinds,
    )
