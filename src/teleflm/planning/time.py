"""How long a step takes on a cluster: closed formulas over what each rank computes and sends."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from teleflm.config.cluster import ClusterConfig
from teleflm.config.run import PipelineSchedule, RunConfig
from teleflm.model.flops import flops_per_token
from teleflm.parallel.layout import Layout
from teleflm.parallel.mesh import AXES
from teleflm.planning.closed import Closed
from teleflm.planning.counting import Traffic

# What of a step is forward, where nothing is computed again: of three products one.
_FORWARD = 1 / 3
_GATHERS = ("dp_shard.all_gather",)
_REDUCTIONS = ("dp_shard.reduce_scatter", "dp_shard.all_reduce", "dp_replicate.all_reduce")


@dataclass(frozen=True)
class StepTime:
    """Where the seconds of a step go, on the pipeline rank that is busiest.

    Attributes:
        compute: its FLOPs, those that are computed again too.
        tensor: collectives of tensor parallelism; all are waited for.
        pipeline: what it sends to the next stage.
        bubble: in which it waits for other stages.
        data: weights and gradients between data-parallel ranks, as far as no computation hides
            them.
        update: of clipping and the optimizer's step.
        bubble_fraction: of the time that the pipeline is at work, the share of the bubble.
    """

    compute: float
    tensor: float
    pipeline: float
    bubble: float
    data: float
    update: float
    bubble_fraction: float

    @property
    def seconds(self) -> float:
        """Of a step."""
        parts = (self.compute, self.tensor, self.pipeline, self.bubble, self.data, self.update)
        return sum(parts)


def step_time(
    config: RunConfig, layout: Layout, cluster: ClusterConfig, work: Sequence[Closed]
) -> StepTime:
    """The seconds of a step.

    Args:
        config: the run.
        layout: of all ranks.
        cluster: what they are on, in the order of the ranks.
        work: what each pipeline rank does, or each of those that differ.
    """
    times = [_time_of(config, layout, cluster, each) for each in work]
    return max(times, key=lambda time: time.seconds)


def _time_of(config: RunConfig, layout: Layout, cluster: ClusterConfig, work: Closed) -> StepTime:
    def spent(*names: str) -> float:
        found = [(name, work.collectives[name]) for name in names if name in work.collectives]
        return sum((collective_seconds(name, each, layout, cluster) for name, each in found), 0.0)

    head = cluster.head_efficiency or cluster.matmul_efficiency
    compute = (work.flops - work.head_flops) / (cluster.peak * cluster.matmul_efficiency)
    compute += work.head_flops / (cluster.peak * head)
    tensor = spent(*(name for name in work.collectives if name.startswith("tp.")))
    # As much comes in as goes out, at the same time.
    pipeline = spent("pp.send") or spent("pp.recv")
    bubble = bubble_of(layout, config.parallel.schedule) / work.micro_batches
    each = compute / work.micro_batches
    # In a pipeline weights are gathered once, under the first micro-batch's forward pass; else for
    # each micro-batch again. Gradients travel once, under the last one's backward pass.
    hides_gathers = _FORWARD * each if layout.pp > 1 else compute
    hides_reductions = (1 - _FORWARD) * each
    return StepTime(
        compute=compute,
        tensor=tensor,
        pipeline=pipeline,
        bubble=(compute + tensor + pipeline) * bubble,
        data=max(0.0, spent(*_GATHERS) - hides_gathers)
        + max(0.0, spent(*_REDUCTIONS) - hides_reductions),
        update=work.parameters * cluster.update_ns * 1e-9,
        bubble_fraction=bubble / (1 + bubble),
    )


def bubble_of(layout: Layout, schedule: PipelineSchedule) -> float:
    """The micro-batches' time that a pipeline rank is idle in a step.

    1F1B: p − 1. With v stages on each rank, 1/v of it (Narayanan et al., arXiv 2104.04473, §2.2).
    Zero bubble puts the weights' gradients, a third of the work, where ranks would wait: a third of
    it is left (ZB-H1; Qi et al., arXiv 2401.10241, §2.3).
    """
    idle = (layout.pp - 1) / layout.stages_per_rank
    return idle / 3 if schedule == "zero_bubble" else idle


def collective_seconds(
    name: str, traffic: Traffic, layout: Layout, cluster: ClusterConfig
) -> float:
    """The seconds of collectives in a ring.

    Of the larger of what goes in and out, B bytes, each of n ranks sends (n − 1)/n · B, and in an
    all-reduce twice that (Thakur, Rabenseifner and Gropp 2005; NCCL's "bus bandwidth").

    Args:
        name: mesh axis and kind, such as `tp.all_gather`.
        traffic: how many, and their bytes.
        layout: of all ranks.
        cluster: what they are on.
    """
    axis, _, kind = name.partition(".")
    size = getattr(layout, axis)
    if size == 1:
        return 0.0
    factor = _RING[kind](size)
    bandwidth = axis_bandwidth(axis, layout, cluster)
    return factor * traffic.bytes / bandwidth + traffic.count * cluster.latency_us * 1e-6


_RING: dict[str, Callable[[int], float]] = {
    "all_gather": lambda n: (n - 1) / n,
    "reduce_scatter": lambda n: (n - 1) / n,
    "all_reduce": lambda n: 2 * (n - 1) / n,
    "broadcast": lambda n: 1.0,
    "send": lambda n: 1.0,
    "recv": lambda n: 1.0,
}


def axis_bandwidth(axis: str, layout: Layout, cluster: ClusterConfig) -> float:
    """Bytes/s of a ring along a mesh axis.

    Where all of its ranks are in one server, a device's own. Else the server's bandwidth, which the
    groups share that cross its border: with tensor parallelism over all of a server's devices there
    is one, and all the ports are its own.
    """
    devices = cluster.devices_per_server
    if not crosses_servers(axis, layout, cluster):
        assert cluster.server_gb_s is not None
        return cluster.server_gb_s * 1e9
    stride, span = _extent(axis, layout)
    assert cluster.network_gb_s is not None
    groups = min(devices, stride if span % devices == 0 else 2 * stride)
    shared = cluster.network_gb_s * devices / groups
    return min(shared, cluster.server_gb_s or shared) * 1e9


def crosses_servers(axis: str, layout: Layout, cluster: ClusterConfig) -> bool:
    """Whether ranks of a group along a mesh axis are in several servers."""
    _, span = _extent(axis, layout)
    devices = cluster.devices_per_server
    return layout.ranks > devices and devices % span != 0


def _extent(axis: str, layout: Layout) -> tuple[int, int]:
    """From a rank of an axis to its next one, and how many ranks a group lies among."""
    sizes = {key: getattr(layout, key) for key in reversed(AXES)}
    stride = 1
    for key, size in sizes.items():
        if key == axis:
            break
        stride *= size
    return stride, stride * sizes[axis]


def model_flops_utilisation(
    config: RunConfig, ranks: int, cluster: ClusterConfig, seconds: float
) -> float:
    """MFU: the model's FLOPs of a step, what is computed again left out, over the peak's.

    Args:
        config: the run.
        ranks: that it runs on.
        cluster: what they are on.
        seconds: of a step.
    """
    length = config.data.sequence_length
    flops = flops_per_token(config.final_model, length) * config.tokens_per_step
    return flops / (ranks * cluster.peak * seconds)
