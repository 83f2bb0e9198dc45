"""The plan of a job on one layout: memory, time and cost."""

from dataclasses import dataclass
from functools import cached_property

from teleflm.config.cluster import ClusterConfig
from teleflm.config.run import ParallelConfig, RunConfig, settled_dtype
from teleflm.errors import ConfigError
from teleflm.model.axes import parameter_count
from teleflm.parallel.choose import layout_for
from teleflm.parallel.layout import Layout, micro_batch_of
from teleflm.parallel.memory import size_text
from teleflm.planning.closed import Closed, closed_form
from teleflm.planning.job import alike_stages
from teleflm.planning.time import StepTime, model_flops_utilisation, step_time

_DAY = 86_400


@dataclass(frozen=True)
class Plan:
    """A run on a layout of a cluster's ranks.

    Attributes:
        config: the run.
        layout: of all ranks.
        cluster: what they are on.
        largest: what the pipeline rank does that needs the most memory.
        time: of a step.
    """

    config: RunConfig
    layout: Layout
    cluster: ClusterConfig
    largest: Closed
    time: StepTime

    @cached_property
    def parameters(self) -> int:
        """Of the model that is trained."""
        return parameter_count(self.config.final_model)

    @property
    def micro_batch(self) -> int:
        """Sequences at a time on a data-parallel rank."""
        return micro_batch_of(self.config.training, self.layout, self.config.parallel.schedule)

    @property
    def memory(self) -> dict[str, int]:
        """Bytes on the rank that needs the most, by kind."""
        kinds = {**self.largest.kept, "activations": self.largest.activations}
        return {**kinds, "total": self.largest.total}

    @property
    def fits(self) -> bool:
        """Whether that rank's device has as much memory."""
        return self.largest.total <= self.cluster.memory

    @property
    def breaks(self) -> str | None:
        """The kind of memory that breaks it, in words; None where it fits."""
        if self.fits:
            return None
        kinds = self.memory
        total = kinds.pop("total")
        kind = max(kinds, key=lambda key: kinds[key])
        if kinds[kind] > self.cluster.memory:
            return f"{kind} {size_text(kinds[kind])} of {size_text(self.cluster.memory)}"
        return (
            f"{kind} {size_text(kinds[kind])} beside {size_text(total - kinds[kind])} of others, "
            f"of {size_text(self.cluster.memory)}"
        )

    @property
    def mfu(self) -> float:
        """Model FLOPs over the peak's."""
        return model_flops_utilisation(
            self.config, self.layout.ranks, self.cluster, self.time.seconds
        )

    @property
    def days(self) -> float:
        """Of all steps, without evaluation, saving and standstills."""
        return self.config.training.steps * self.time.seconds / _DAY

    @property
    def gpu_hours(self) -> float:
        """Of all ranks."""
        return self.days * 24 * self.layout.ranks

    @property
    def cost(self) -> float | None:
        """By the cluster's price."""
        price = self.cluster.price_per_hour
        return None if price is None else price * self.gpu_hours


def plan(config: RunConfig, cluster: ClusterConfig) -> Plan:
    """The plan of a run on the layout that it asks for.

    Raises:
        ConfigError: a layout that cannot be had, or that has more ranks than the cluster.
    """
    config = settled_dtype(config, cluster.dtype)
    return plan_on(config, layout_for(config, ranks_of(config.parallel, cluster)), cluster)


def plan_on(config: RunConfig, layout: Layout, cluster: ClusterConfig) -> Plan:
    """The plan of a run on a layout that it can have."""
    # Of stages that are alike the first has the most micro-batches in flight.
    ranks = [group[0] for group in alike_stages(config, layout)]
    work = [closed_form(config, layout, rank, cluster.kind) for rank in ranks]
    largest = max(work, key=lambda each: each.total)
    return Plan(config, layout, cluster, largest, step_time(config, layout, cluster, work))


def ranks_of(parallel: ParallelConfig, cluster: ClusterConfig) -> int:
    """All of the cluster's devices, or as many as a layout has that is given whole.

    Raises:
        ConfigError: these are more than the cluster has.
    """
    dp = parallel.dp
    if parallel.dp_replicate and parallel.dp_shard:
        dp = parallel.dp_replicate * parallel.dp_shard
    if dp is None:
        return cluster.devices
    ranks = parallel.tp * parallel.pp * dp
    if ranks > cluster.devices:
        raise ConfigError(
            f"parallel.tp {parallel.tp} × parallel.pp {parallel.pp} × dp {dp} are {ranks} ranks, "
            f"but the cluster has {cluster.devices} devices; take fewer, or a larger cluster"
        )
    return ranks
