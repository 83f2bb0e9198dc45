"""The layout that a run asks for, or why it cannot be had and which ones can."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import log

from teleflm.config.model import ModelConfig
from teleflm.config.run import ParallelConfig, RunConfig, TrainingConfig
from teleflm.errors import ConfigError
from teleflm.parallel.layout import Layout, micro_batches_fit

# The keys of `parallel` by which layouts are near to what was asked for.
_ASKED = ("tp", "pp", "dp", "dp_replicate", "dp_shard")
_NEAREST = 3


@dataclass(frozen=True)
class Job:
    """What is to be laid out.

    Attributes:
        models: all of them have to go into the layout; by the names that errors give them.
        sequence_length: positions of a sequence.
        training, parallel: as in a run.
    """

    models: Mapping[str, ModelConfig]
    sequence_length: int
    training: TrainingConfig
    parallel: ParallelConfig


def job_of(config: RunConfig) -> Job:
    """What a run lays out: where it grows, the model that it grows to.

    Args:
        config: the run, its vocabulary filled in.
    """
    models = {"growth.to" if config.growth else "model": config.final_model}
    return Job(models, config.data.sequence_length, config.training, config.parallel)


def layout_for(config: RunConfig, ranks: int) -> Layout:
    """How a run is laid out on its ranks.

    Args:
        config: the run, its vocabulary filled in.
        ranks: all of them.

    Raises:
        ConfigError: see `layout_of`.
    """
    return layout_of(job_of(config), ranks)


def layout_of(job: Job, ranks: int) -> Layout:
    """How a job is laid out on its ranks; pure arithmetic, nothing is allocated.

    `dp` is what tp and pp leave of the ranks. It is all sharded unless `dp_replicate` or `dp_shard`
    is given; the one that is not follows.

    Raises:
        ConfigError: the ranks, a model or the batch do not divide so. It names the key, the
            number, and up to three of the nearest layouts of as many ranks that fit.
    """
    check_job(job)
    try:
        layout = asked_layout(job.parallel, ranks)
        _check(job, layout)
    except ConfigError as error:
        raise ConfigError(f"{error}; {_way_out(job, ranks)}") from None
    return layout


def check_job(job: Job) -> None:
    """Raises ConfigError where no layout at all could do what is asked for."""
    _check_dtypes(job)
    _check_schedule(job.parallel)


def _check_dtypes(job: Job) -> None:
    parallel, dtype = job.parallel, job.training.dtype
    for key, value in {
        "parallel.gather_dtype": parallel.gather_dtype,
        "parallel.reduce_dtype": parallel.reduce_dtype,
    }.items():
        if value is not None and dtype == "fp64":
            raise ConfigError(
                f"{key} {value} would round what training.dtype fp64 computes; leave it out"
            )
    if parallel.gather_dtype == "bf16" and dtype != "bf16":
        raise ConfigError(
            f"parallel.gather_dtype bf16 hands bf16 weights to a computation in training.dtype "
            f"{dtype}; leave it out, or train in bf16"
        )


def _check_schedule(parallel: ParallelConfig) -> None:
    if parallel.schedule == "1f1b" and (parallel.stages_per_rank or 1) > 1:
        raise ConfigError(
            f"parallel.stages_per_rank {parallel.stages_per_rank}: the schedule 1f1b has one stage "
            "on each rank; leave it out, or give parallel.schedule interleaved or zero_bubble"
        )


def asked_layout(parallel: ParallelConfig, ranks: int) -> Layout:
    """The layout that the keys of `parallel` give, whatever is to go into it.

    Raises:
        ConfigError: they do not divide the ranks, or contradict one another.
    """
    tp, pp = parallel.tp, parallel.pp
    if ranks % (tp * pp):
        raise ConfigError(f"parallel.tp {tp} × parallel.pp {pp} does not divide {ranks} ranks")
    dp = ranks // (tp * pp)
    replicate = parallel.dp_replicate or (dp // parallel.dp_shard if parallel.dp_shard else 1)
    shard = parallel.dp_shard or dp // replicate
    if parallel.dp not in (None, dp) or replicate * shard != dp:
        given = [
            f"parallel.{axis} {getattr(parallel, axis)}"
            for axis in ("dp", "dp_replicate", "dp_shard")
            if getattr(parallel, axis) is not None
        ]
        raise ConfigError(
            f"{' and '.join(given)}: tp {tp} × pp {pp} leaves dp {dp} of {ranks} ranks"
        )
    return Layout(pp, replicate, shard, tp, _stages_per_rank(parallel, pp))


def _stages_per_rank(parallel: ParallelConfig, pp: int) -> int:
    if pp == 1 or parallel.schedule == "1f1b":
        return 1
    return parallel.stages_per_rank or 2


def _check(job: Job, layout: Layout) -> None:
    """Raises ConfigError where a model or the batch does not go into a layout."""
    for name, model in job.models.items():
        _check_model(name, model, layout)
    # Between the blocks the residual stream is split along it.
    if job.sequence_length % layout.tp:
        raise ConfigError(
            f"parallel.tp {layout.tp} does not divide data.sequence_length {job.sequence_length}"
        )
    if layout.pp > 1 and job.parallel.schedule == "zero_bubble":
        _check_split_backward(job)
    _check_batch(job, layout)


def _check_split_backward(job: Job) -> None:
    for key, is_given in {
        "training.compile true": job.training.compile is True,
        "parallel.activation_checkpointing selective": (
            job.parallel.activation_checkpointing == "selective"
        ),
    }.items():
        if is_given:
            raise ConfigError(
                "parallel.schedule zero_bubble goes backward through a block in two parts, which "
                f"PyTorch cannot do with {key}; leave one of them out"
            )
    if job.parallel.activation_checkpointing == "full":
        raise ConfigError(
            "parallel.schedule zero_bubble goes backward through a block in two parts, in which "
            "PyTorch computes it again several times with parallel.activation_checkpointing full; "
            "give none, or the schedule 1f1b or interleaved"
        )


def _check_model(name: str, model: ModelConfig, layout: Layout) -> None:
    # Whole groups of heads, whose queries go with them. The vocabulary is padded.
    for key in ("num_key_value_heads", "intermediate_size"):
        size = getattr(model, key)
        if size % layout.tp:
            raise ConfigError(f"parallel.tp {layout.tp} does not divide {name}.{key} {size}")
    layers = model.num_hidden_layers
    if layers < layout.stages:
        raise ConfigError(
            f"parallel.pp {layout.pp} with {layout.stages_per_rank} stages on each rank makes "
            f"{layout.stages} stages, but {name}.num_hidden_layers is {layers}"
        )


def _check_batch(job: Job, layout: Layout) -> None:
    training, schedule = job.training, job.parallel.schedule
    batch, micro = training.global_batch, training.micro_batch
    share, rest = divmod(batch, layout.dp)
    if rest:
        raise ConfigError(f"training.global_batch {batch} does not divide by dp {layout.dp}")
    part = f"the {share} sequences that training.global_batch {batch} leaves to each of dp"
    part = f"{part} {layout.dp}"
    if micro is not None and share % micro:
        raise ConfigError(f"training.micro_batch {micro} does not divide {part}")
    sizes = range(1, share + 1) if micro is None else [micro]
    counts = [share // size for size in sizes if share % size == 0]
    if layout.pp == 1 or any(micro_batches_fit(count, layout, schedule) for count in counts):
        return
    most = max(counts)
    if most < layout.pp:
        raise ConfigError(
            f"parallel.pp {layout.pp} needs as many micro-batches, but {part} make {most}"
        )
    raise ConfigError(
        f"parallel.schedule {schedule} deals micro-batches out in {most // layout.pp} equal rounds "
        f"to parallel.pp {layout.pp}, but {part} make {most}"
    )


def _way_out(job: Job, ranks: int) -> str:
    layouts = layouts_of(job.parallel, ranks)
    fitting = [layout for layout in layouts if why_not(job, layout) is None]
    if not fitting:
        return f"no layout of {ranks} ranks fits: change their number, the model or the batch"
    asked = {axis: value for axis in _ASKED if (value := getattr(job.parallel, axis))}
    # By how many doublings or halvings each axis is away from what was asked for.
    fitting.sort(
        key=lambda layout: sum(
            abs(log(getattr(layout, axis) / value)) for axis, value in asked.items()
        )
    )
    nearest = "; ".join(map(str, fitting[:_NEAREST]))
    return f"the nearest layouts of {ranks} ranks that fit: {nearest}"


def why_not(job: Job, layout: Layout) -> str | None:
    """Why a model or the batch does not go into a layout; None where all do."""
    try:
        _check(job, layout)
    except ConfigError as error:
        return str(error)
    return None


def layouts_of(parallel: ParallelConfig, ranks: int) -> Iterator[Layout]:
    """All of so many ranks; in copies only where the run asks for them."""
    in_copies = parallel.dp_replicate is not None or parallel.dp_shard is not None
    for tp in _divisors(ranks):
        for pp in _divisors(ranks // tp):
            dp = ranks // tp // pp
            for replicate in _divisors(dp) if in_copies else [1]:
                stages_per_rank = _stages_per_rank(parallel, pp)
                yield Layout(pp, replicate, dp // replicate, tp, stages_per_rank)


def _divisors(number: int) -> list[int]:
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]
