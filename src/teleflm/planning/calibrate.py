"""This machine as a cluster, measured with the layers that a run would train."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from teleflm.config.base import to_yaml
from teleflm.config.cluster import ClusterConfig
from teleflm.config.run import RunConfig, settled_dtype
from teleflm.data.mixture import Mixture
from teleflm.errors import ConfigError
from teleflm.files import write_whole
from teleflm.model.batch import Batch
from teleflm.parallel.choose import layout_for
from teleflm.parallel.layout import Layout, micro_batch_of
from teleflm.parallel.memory import size_text
from teleflm.parallel.ranks import Ranks
from teleflm.planning.closed import Closed, closed_form
from teleflm.planning.dryrun import made_up_batch
from teleflm.planning.local import local_cluster
from teleflm.planning.plan import ranks_of
from teleflm.training.faults import Verdict
from teleflm.training.learner import Learner
from teleflm.training.prepare import compiles, engine_of
from teleflm.training.start import start_state
from teleflm.training.step import train_step

# The first rounds compile, allocate and choose kernels. Of the others each has one step of both
# probes, so that a busy machine slows both alike.
_WARM, _ROUNDS, _SECONDS = 2, 7, 5.0
# Layers of the two short forms of the run that are measured.
_LAYERS = (1, 4)


@dataclass(frozen=True)
class Probe:
    """A short form of a run.

    Attributes:
        config: few layers, one micro-batch.
        work: what its step does in one process.
    """

    config: RunConfig
    work: Closed

    @property
    def layers(self) -> int:
        """How many it has."""
        return self.config.model.num_hidden_layers


def probe(config: RunConfig, layers: int, micro_batch: int, kind: str) -> Probe:
    """The run with so many layers and one micro-batch, from fresh weights, on a kind of device."""
    model = config.final_model.model_copy(update={"num_hidden_layers": layers})
    training = config.training.model_copy(
        update={"global_batch": micro_batch, "micro_batch": micro_batch}
    )
    short = config.model_copy(
        update={"model": model, "growth": None, "start_from": None, "training": training}
    )
    return Probe(short, closed_form(short, Layout(), 0, kind))


@dataclass(frozen=True)
class Seconds:
    """Of a step: its forward and backward passes, and its clipping and update."""

    passes: float
    update: float


def calibrated(config: RunConfig) -> ClusterConfig:
    """Measure real steps of 1 and of 4 of the run's layers, with one micro-batch.

    It takes some seconds, the more the wider the layers.

    Args:
        config: the run; data.path is not opened.

    Raises:
        ConfigError: a layout that this machine cannot have, layers that do not fit it, or a machine
            that is too busy.
    """
    local = local_cluster(config.training.dtype)
    config = settled_dtype(config, local.dtype)
    layout = layout_for(config, ranks_of(config.parallel, local))
    micro = micro_batch_of(config.training, layout, config.parallel.schedule)
    few, more = (probe(config, layers, micro, local.kind) for layers in _LAYERS)
    if more.work.total > local.memory:
        raise ConfigError(
            f"{more.layers} of the model's layers need {size_text(more.work.total)}, and this "
            f"machine has {size_text(local.memory)}; calibrate with a smaller model or "
            "training.micro_batch"
        )
    seconds = _seconds([_stepping(each.config) for each in (few, more)])
    return fitted(local, few, more, *seconds)


def fitted(
    local: ClusterConfig, few: Probe, more: Probe, fewer_take: Seconds, more_take: Seconds
) -> ClusterConfig:
    """A cluster on which the probes take as long as they did.

    Passes are micro-batches · (layers · layer + ends), where ends are embedding, head and loss.

    Args:
        local: the machine, not yet measured so.
        few, more: a few layers, and more of them.
        fewer_take, more_take: of a step of each.

    Raises:
        ConfigError: more layers took no longer.
    """
    layer = (more_take.passes - fewer_take.passes) / (more.layers - few.layers)
    ends = fewer_take.passes - few.layers * layer
    if layer <= 0:
        raise ConfigError(
            f"this machine is too busy to be measured: {more.layers} layers took no longer than "
            f"{few.layers}; try again"
        )
    rate = (few.work.flops - few.work.head_flops) / few.layers / layer
    # A peak that was measured on other products may be less than what these reach.
    peak = max(local.peak, rate)
    # The ends may be lost in the noise.
    head = min(few.work.head_flops / ends, peak) if ends > 0 else peak
    return local.model_copy(
        update={
            "peak_tflops": _digits(peak / 1e12),
            "matmul_efficiency": _digits(rate / peak),
            "head_efficiency": _digits(head / peak),
            "update_ns": _digits(more_take.update / more.work.parameters * 1e9),
        }
    )


def _digits(value: float) -> float:
    """As many as a measurement has."""
    return float(f"{value:.4g}")


def write_calibrated(path: Path, config: RunConfig, cluster: ClusterConfig) -> None:
    """Write a measured cluster as a file for `--cluster`, with what it was measured with."""
    model, length = config.final_model, config.data.sequence_length
    compiled = compiles(config, torch.device(cluster.kind))
    dtype = f"{cluster.dtype}{', compiled' * compiled}"
    head = (
        "# This machine, measured with layers of "
        f"hidden {model.hidden_size}, FFN {model.intermediate_size},\n"
        f"# sequences of {length} tokens, {dtype}. Other widths reach other shares of the peak.\n"
        "# What devices send each other was not measured.\n"
    )
    write_whole(path, head + to_yaml(cluster))


class _Timed(Learner):
    """Knows how long its passes took."""

    passes = 0.0

    def accumulate(self, batch: Batch) -> Tensor:
        start = time.perf_counter()
        loss = super().accumulate(batch)
        _wait(batch.tokens.device)
        self.passes = time.perf_counter() - start
        return loss


def _stepping(config: RunConfig) -> Callable[[], Seconds]:
    """What takes a step of the run on one device, and measures it."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    state = start_state(config, Mixture([], None, None), Ranks())
    learner = _Timed(state, config.optimizer, engine=engine_of(config, state.model, None, device))
    size = (config.training.global_batch, config.data.sequence_length + 1)
    rows = torch.randint(config.model.vocab_size, size, device=device)
    batch = made_up_batch(config, rows)
    clip = config.optimizer.clip

    def step() -> Seconds:
        start = time.perf_counter()
        train_step(learner, batch, step=0, factor=0.0, clip=clip, judge=lambda *_: Verdict())
        _wait(device)
        return Seconds(learner.passes, time.perf_counter() - start - learner.passes)

    return step


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _seconds(steps: Sequence[Callable[[], Seconds]]) -> list[Seconds]:
    """Of each, the medians of rounds that run all of them."""
    found: list[list[Seconds]] = []
    until = float("inf")
    while len(found) < _WARM + _ROUNDS or time.perf_counter() < until:
        if len(found) == _WARM:
            until = time.perf_counter() + _SECONDS
        found.append([step() for step in steps])
    return [
        Seconds(median(each.passes for each in times), median(each.update for each in times))
        for times in zip(*found[_WARM:], strict=True)
    ]
