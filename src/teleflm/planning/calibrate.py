"""This machine as a cluster, measured with the layers that a run would train."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch

from teleflm.config.base import to_yaml
from teleflm.config.cluster import ClusterConfig
from teleflm.config.run import RunConfig
from teleflm.data.mixture import Mixture
from teleflm.errors import ConfigError
from teleflm.files import write_whole
from teleflm.parallel.choose import layout_for
from teleflm.parallel.layout import Layout, micro_batch_of
from teleflm.parallel.memory import size_text
from teleflm.parallel.ranks import Ranks
from teleflm.planning.closed import Closed, closed_form
from teleflm.planning.local import local_cluster
from teleflm.planning.plan import ranks_of
from teleflm.training.faults import Verdict
from teleflm.training.learner import Learner
from teleflm.training.prepare import engine_of
from teleflm.training.start import start_state
from teleflm.training.step import train_step

# The first rounds compile, allocate and choose kernels. Of the others each has one step of every
# probe, so that a busy machine slows all of them alike.
_WARM, _ROUNDS, _SECONDS = 2, 7, 5.0


# Layers and micro-batches of what is measured.
_SHORT = ((2, 1), (4, 1), (2, 2))


def calibrated(config: RunConfig) -> ClusterConfig:
    """Measure real steps of 2 and of 4 of the run's layers, and of two micro-batches.

    It takes some seconds, the more the wider the layers.

    Args:
        config: the run; data.path is not opened.

    Raises:
        ConfigError: a layout that this machine cannot have, layers that do not fit it, or a machine
            that is too busy.
    """
    local = local_cluster()
    layout = layout_for(config, ranks_of(config.parallel, local))
    micro = micro_batch_of(config.training, layout, config.parallel.schedule)
    probes = [probe(config, layers, micro, of) for layers, of in _SHORT]
    largest = max(each.work.total for each in probes)
    if largest > local.memory:
        raise ConfigError(
            f"4 of the model's layers need {size_text(largest)}, and this machine has "
            f"{size_text(local.memory)}; calibrate with a smaller model or training.micro_batch"
        )
    return fitted(local, probes, _seconds([_stepping(each.config) for each in probes]))


@dataclass(frozen=True)
class Probe:
    """A short form of a run.

    Attributes:
        config: few layers, few micro-batches.
        work: what its step does in one process.
    """

    config: RunConfig
    work: Closed

    @property
    def layers(self) -> int:
        """How many it has."""
        return self.config.model.num_hidden_layers


def probe(config: RunConfig, layers: int, micro_batch: int, micro_batches: int) -> Probe:
    """The run with so many layers and micro-batches, from fresh weights."""
    model = config.final_model.model_copy(update={"num_hidden_layers": layers})
    training = config.training.model_copy(
        update={"global_batch": micro_batch * micro_batches, "micro_batch": micro_batch}
    )
    short = config.model_copy(
        update={"model": model, "growth": None, "start_from": None, "training": training}
    )
    return Probe(short, closed_form(short, Layout(), 0))


def fitted(
    local: ClusterConfig, probes: Sequence[Probe], seconds: Sequence[float]
) -> ClusterConfig:
    """A cluster on which the probes take as long as they did.

    A step is micro-batches · (layers · layer + ends) + parameters · update, where ends are
    embedding, head and loss.

    Args:
        local: the machine, not yet measured so.
        probes: a few layers, more of them, and the few with two micro-batches.
        seconds: of a step of each.

    Raises:
        ConfigError: more layers took no longer.
    """
    few, more, _ = probes
    fewest, most, double = seconds
    passes = double - fewest
    update = max(fewest - passes, 0.0) / few.work.parameters
    rest = update * (more.work.parameters - few.work.parameters)
    layer = (most - fewest - rest) / (more.layers - few.layers)
    ends = passes - few.layers * layer
    if layer <= 0:
        raise ConfigError(
            f"this machine is too busy to be measured: {more.layers} layers took no longer than "
            f"{few.layers}; try again"
        )
    rate = (few.work.flops - few.work.head_flops) / few.layers / layer
    # Where the ends are lost in the noise they count as the layers do.
    head = few.work.head_flops / ends if ends > 0 else rate
    # A peak that was measured on other products may be less than what these reach.
    peak = max(local.peak, rate, head)
    return local.model_copy(
        update={
            "peak_tflops": _digits(peak / 1e12),
            "matmul_efficiency": _digits(rate / peak),
            "head_efficiency": _digits(head / peak),
            "update_ns": _digits(update * 1e9),
        }
    )


def _digits(value: float) -> float:
    """As many as a measurement has."""
    return float(f"{value:.4g}")


def write_calibrated(path: Path, config: RunConfig, cluster: ClusterConfig) -> None:
    """Write a measured cluster as a file for `--cluster`, with what it was measured with."""
    model, length = config.final_model, config.data.sequence_length
    dtype = f"{config.training.dtype}{', compiled' * config.training.compile}"
    head = (
        "# This machine, measured with layers of "
        f"hidden {model.hidden_size}, FFN {model.intermediate_size},\n"
        f"# sequences of {length} tokens, {dtype}. Other widths reach other shares of the peak.\n"
        "# What devices send each other was not measured.\n"
    )
    write_whole(path, head + to_yaml(cluster))


def _stepping(config: RunConfig) -> Callable[[], object]:
    """What takes a step of the run on one device, and waits for it."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    state = start_state(config, Mixture([], None, None), Ranks())
    learner = Learner(state, config.optimizer, engine=engine_of(config, None, device))
    size = (config.training.global_batch, config.data.sequence_length + 1)
    batch = torch.randint(config.model.vocab_size, size, device=device)
    clip = config.optimizer.clip

    def step() -> None:
        train_step(learner, batch, step=0, factor=0.0, clip=clip, judge=lambda *_: Verdict())
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return step


def _seconds(steps: list[Callable[[], object]]) -> list[float]:
    """Of each, the median of rounds that run all of them."""
    found: list[list[float]] = []
    until = float("inf")
    while len(found) < _WARM + _ROUNDS or time.perf_counter() < until:
        if len(found) == _WARM:
            until = time.perf_counter() + _SECONDS
        times = []
        for step in steps:
            start = time.perf_counter()
            step()
            times.append(time.perf_counter() - start)
        found.append(times)
    return [median(times) for times in zip(*found[_WARM:], strict=True)]
