"""What a rank does in a case of the dry run's suite: a real step, counted."""

from contextlib import nullcontext
from typing import Any

import torch
import torch.distributed as dist

from teleflm.config.run import resolve_run
from teleflm.growth.state import TrainingState
from teleflm.parallel.choose import layout_for
from teleflm.parallel.mesh import build_mesh
from teleflm.planning.counting import Counting
from teleflm.planning.dryrun import axis_names, counted_step, empty_state, made_up_batch
from teleflm.training.prepare import engine_of


def real_step(data: dict[str, Any]) -> dict[str, Any]:
    """What one rank's first step has: bytes, FLOPs, collectives."""
    config = resolve_run(data, "the test")
    layout = layout_for(config, dist.get_world_size())
    mesh = build_mesh(layout, dist.get_rank(), torch.device("cpu"))
    share = config.training.global_batch // layout.dp
    batch = torch.randint(config.model.vocab_size, (share, config.data.sequence_length + 1))
    state = filled_state(empty_state(config, layout, dist.get_rank()))
    counted, kept = counted_step(config, mesh, state, made_up_batch(config, batch), nullcontext())
    return {
        "kept": kept,
        "peak": counted.peak,
        "flops": dict(counted.flops),
        "collectives": counted.collectives,
    }


def evaluation_peak(data: dict[str, Any]) -> int:
    """The most bytes of an evaluation of one batch, beyond the weights."""
    config = resolve_run(data, "the test")
    layout = layout_for(config, dist.get_world_size())
    mesh = build_mesh(layout, dist.get_rank(), torch.device("cpu"))
    engine = engine_of(config, config.final_model, mesh, torch.device("cpu"))
    for shard in engine.shards:
        shard.local.data.fill_(0.02)
    rows = torch.zeros(config.training.global_batch, config.data.sequence_length + 1).long()
    with Counting(axis_names(mesh)) as counted:
        engine.loss_sum(made_up_batch(config, rows))
    return counted.peak


def filled_state(state: TrainingState) -> TrainingState:
    """A state with small weights and no history."""
    for name, weight in state.weights.items():
        weight.normal_(std=0.02)
        state.exp_avg[name].zero_()
        state.exp_avg_sq[name].zero_()
    return state
