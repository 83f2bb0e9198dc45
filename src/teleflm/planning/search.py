"""All layouts of a cluster for a run, ranked, with the reason why each is not the best."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, get_args

from teleflm.config.cluster import ClusterConfig
from teleflm.config.run import Recomputation, RunConfig, settled_dtype
from teleflm.parallel.choose import (
    asked_layout,
    check_job,
    job_of,
    layout_for,
    layouts_of,
    why_not,
)
from teleflm.parallel.layout import Layout, micro_batch_of
from teleflm.planning.plan import Plan, plan_on, ranks_of
from teleflm.planning.time import crosses_servers

# Nobody sees less: two plans whose steps differ by less are as quick.
_SAME = 0.005


@dataclass(frozen=True)
class Candidate:
    """A layout with a micro-batch and a kind of activation checkpointing.

    Attributes:
        layout: of all ranks.
        asked: whether it is the layout that the run itself has.
        plan: None where the run cannot have the layout at all.
        place: from 1 on.
        reason: why it is not the first; of the first, that it is.
    """

    layout: Layout
    asked: bool
    plan: Plan | None
    place: int = 0
    reason: str = ""


def search(config: RunConfig, cluster: ClusterConfig) -> list[Candidate]:
    """Layouts × micro-batches × activation checkpointing, ranked: those that fit by their time,
    then those that do not by the memory that they need, then what cannot be had.

    The run's schedule and precisions are kept; weights are gathered in bf16 where it computes in
    bf16. The layout that the run asks for is among them whatever comes of it.

    Args:
        config: the run; of `parallel`, tp, pp and dp are searched.
        cluster: what it is to be on; where dp is given too, as many ranks as that makes.

    Raises:
        ConfigError: what no layout can do, more ranks than the cluster has, or a layout that does
            not divide them.
    """
    config = settled_dtype(config, cluster.dtype)
    ranks = ranks_of(config.parallel, cluster)
    if config.training.dtype == "bf16":
        config = _with(config, parallel={"gather_dtype": "bf16"})
    check_job(job_of(config))
    found = sorted(_candidates(config, cluster, ranks), key=_rank)
    best = found[0].plan
    if best is None:
        layout_for(config, ranks)
    return [
        replace(each, place=place, reason=_reason(each, best, place))
        for place, each in enumerate(found, start=1)
    ]


def least_recomputation(config: RunConfig, cluster: ClusterConfig) -> Plan:
    """The plan of a run with the least activation checkpointing that fits, else with the most.

    Raises:
        ConfigError: see `plan`.
    """
    config = settled_dtype(config, cluster.dtype)
    layout = layout_for(config, ranks_of(config.parallel, cluster))
    micro = micro_batch_of(config.training, layout, config.parallel.schedule)
    for tried in settings(config, layout, [micro]):
        found = plan_on(tried, layout, cluster)
        if found.fits:
            break
    return found


def settings(config: RunConfig, layout: Layout, micro_batches: list[int]) -> Iterator[RunConfig]:
    """The run on a layout with each of these micro-batches and kinds of checkpointing, as far as
    they go together."""
    for micro in micro_batches:
        for kind in get_args(Recomputation):
            tried = _with(
                config,
                training={"micro_batch": micro},
                parallel={"activation_checkpointing": kind},
            )
            if why_not(job_of(tried), layout) is None:
                yield tried


def _candidates(config: RunConfig, cluster: ClusterConfig, ranks: int) -> Iterator[Candidate]:
    asked = asked_layout(config.parallel, ranks)
    for layout in layouts_of(config.parallel, ranks):
        laid_out = _on(config, layout)
        why = why_not(job_of(laid_out), layout)
        if why is not None:
            yield Candidate(layout, layout == asked, None, reason=why)
            continue
        for tried in settings(laid_out, layout, _micro_batches(laid_out, layout)):
            yield Candidate(layout, layout == asked, plan_on(tried, layout, cluster))


def _on(config: RunConfig, layout: Layout) -> RunConfig:
    """The run on a layout; what is searched for each layout does not rule it out."""
    axes = {axis: getattr(layout, axis) for axis in ("tp", "pp", "dp", "dp_replicate", "dp_shard")}
    parallel = {**axes, "activation_checkpointing": "none"}
    return _with(config, training={"micro_batch": None}, parallel=parallel)


def _micro_batches(config: RunConfig, layout: Layout) -> list[int]:
    """Powers of two, and the most that the schedule takes: it may take none of them."""
    share = config.training.global_batch // layout.dp
    powers = (2**n for n in range(share.bit_length()))
    most = micro_batch_of(config.training, layout, config.parallel.schedule)
    return sorted({most, *(size for size in powers if share % size == 0)})


def _with(config: RunConfig, **sections: dict[str, Any]) -> RunConfig:
    update = {
        name: getattr(config, name).model_copy(update=values) for name, values in sections.items()
    }
    return config.model_copy(update=update)


def _rank(candidate: Candidate) -> tuple[float, ...]:
    plan = candidate.plan
    if plan is None:
        return (2.0, candidate.layout.tp, candidate.layout.pp)
    if not plan.fits:
        return (1.0, plan.largest.total, plan.time.seconds)
    # What is computed again beside matrix products takes time too, which is not counted.
    kind = get_args(Recomputation).index(plan.config.parallel.activation_checkpointing)
    return (0.0, plan.time.seconds, kind, plan.largest.total)


def _reason(candidate: Candidate, best: Plan | None, place: int) -> str:
    plan = candidate.plan
    if plan is None:
        return candidate.reason
    if plan.breaks is not None:
        return plan.breaks
    assert best is not None
    if place == 1:
        return "the fastest that fits"
    if plan.time.seconds <= best.time.seconds * (1 + _SAME):
        return f"as fast, to {_SAME:.1%}"
    return _what_costs(plan, best)


def _what_costs(plan: Plan, best: Plan) -> str:
    """Of the parts of a step, the one that takes most more than in the best plan."""
    layout, time = plan.layout, plan.time
    kinds = [each.config.parallel.activation_checkpointing for each in (plan, best)]
    across = " crosses servers" if crosses_servers("tp", layout, plan.cluster) else ""
    computes = f"busiest stage computes {time.compute:.3g} s"
    words = {
        "compute": f"its {computes}, that of the first {best.time.compute:.3g} s",
        "tensor": f"tp {layout.tp}{across}: {time.tensor:.3g} s of communication",
        "pipeline": f"pp {layout.pp}: {time.pipeline:.3g} s from stage to stage",
        "bubble": (
            f"pp {layout.pp} with {plan.largest.micro_batches} micro-batches: "
            f"bubble {time.bubble_fraction:.0%}"
        ),
        "data": f"dp {layout.dp}: {time.data:.3g} s of weights and gradients that nothing hides",
    }
    if kinds[0] == "full" != kinds[1]:
        words["compute"] = f"full recomputation: {computes}"
    more = {part: getattr(time, part) - getattr(best.time, part) for part in words}
    return words[max(more, key=lambda part: more[part])]
