"""Who holds what: a layout of tensor, pipeline and data parallel ranks, as plain arithmetic.

No process group is needed here, so that a laptop can ask what rank 417 of 896 would hold.
"""

from dataclasses import dataclass
from heapq import heapify, heapreplace
from itertools import accumulate
from math import prod

from teleflm.config.model import ModelConfig
from teleflm.config.run import PipelineSchedule, TrainingConfig
from teleflm.model.axes import (
    EMBEDDING,
    HEAD,
    PARAMETERS,
    Axis,
    Parameter,
    own_name,
    parameters_of,
)
from teleflm.model.region import Region

# What tensor parallelism splits; the hidden axis stays whole on every rank.
TENSOR_PARALLEL = frozenset({Axis.VOCAB, Axis.HEADS, Axis.KV_HEADS, Axis.FFN})
# Rows of the vocabulary for each tensor-parallel rank come in multiples of this, in memory only.
_VOCABULARY_ROWS = 128


@dataclass(frozen=True)
class Place:
    """A rank's coordinates on the mesh axes."""

    pp: int
    dp_replicate: int
    dp_shard: int
    tp: int


@dataclass(frozen=True)
class Layout:
    """Ranks on the mesh axes (pp, dp_replicate, dp_shard, tp), the last one fastest.

    `stages_per_rank` pipeline stages live on each pipeline rank: stage s on rank s mod pp.
    """

    pp: int = 1
    dp_replicate: int = 1
    dp_shard: int = 1
    tp: int = 1
    stages_per_rank: int = 1

    @property
    def dp(self) -> int:
        """Ranks that read different sequences."""
        return self.dp_replicate * self.dp_shard

    @property
    def ranks(self) -> int:
        """All ranks."""
        return self.pp * self.dp * self.tp

    @property
    def stages(self) -> int:
        """Pipeline stages."""
        return self.pp * self.stages_per_rank

    def place(self, rank: int) -> Place:
        """Where a rank stands."""
        rest, tp = divmod(rank, self.tp)
        rest, dp_shard = divmod(rest, self.dp_shard)
        pp, dp_replicate = divmod(rest, self.dp_replicate)
        return Place(pp, dp_replicate, dp_shard, tp)

    def __str__(self) -> str:
        data = f"dp {self.dp_shard}"
        if self.dp_replicate > 1:
            data = f"dp {self.dp_replicate} × {self.dp_shard}"
        return f"tp {self.tp} · pp {self.pp} · {data}"


def sharded_dim(parameter: Parameter) -> int | None:
    """The dim of a parameter that tensor parallelism splits, None where every rank has it all."""
    for dim, axis in enumerate(parameter.axes):
        if axis in TENSOR_PARALLEL:
            return dim
    return None


def padded_vocabulary(vocab_size: int, tp: int) -> int:
    """Rows of embedding and head in memory: up to the next multiple of 128 · tp."""
    unit = _VOCABULARY_ROWS * tp
    return -(-vocab_size // unit) * unit if tp > 1 else vocab_size


def stage_layers(model: ModelConfig, stages: int) -> list[range]:
    """The layers of each pipeline stage; at most as many stages as layers.

    Embedding and head weigh what they have of parameters. Each further layer goes to the stage that
    is least loaded with it, so the heaviest stage is as light as can be.
    """
    rows = parameters_of(model)
    layer = sum(prod(row.shape(model)) for pattern, row in rows.items() if "*" in pattern)
    loads = [layer] * stages
    # Also where it is tied: both ends hold it then.
    for end, name in ((0, EMBEDDING), (-1, HEAD)):
        loads[end] += prod(PARAMETERS[name].shape(model))
    lightest = [(load, stage) for stage, load in enumerate(loads)]
    heapify(lightest)
    counts = [1] * stages
    for _ in range(model.num_hidden_layers - stages):
        load, stage = lightest[0]
        counts[stage] += 1
        heapreplace(lightest, (load + layer, stage))
    ends = list(accumulate(counts))
    return [range(end - count, end) for end, count in zip(ends, counts, strict=True)]


def stages_of(layout: Layout, rank: int) -> list[int]:
    """The pipeline stages of a rank, in the order of the layers."""
    return list(range(layout.place(rank).pp, layout.stages, layout.pp))


def micro_batches_fit(count: int, layout: Layout, schedule: PipelineSchedule) -> bool:
    """Whether a pipeline takes a batch in so many micro-batches.

    Each pipeline rank needs one. `1f1b` takes any number above; the others deal them out in rounds
    of equal size, of which there are as many as give each rank a micro-batch in each.
    """
    rounds = count // layout.pp
    return rounds > 0 and (schedule == "1f1b" or count % rounds == 0)


def micro_batch_of(training: TrainingConfig, layout: Layout, schedule: PipelineSchedule) -> int:
    """Sequences at a time on a data-parallel rank: what is configured, else all of its share, or
    with a pipeline the most that the schedule takes."""
    if training.micro_batch is not None:
        return training.micro_batch
    share = training.global_batch // layout.dp
    if layout.pp == 1:
        return share
    return max(
        micro
        for micro in range(1, share + 1)
        if share % micro == 0 and micro_batches_fit(share // micro, layout, schedule)
    )


def regions(layout: Layout, model: ModelConfig, rank: int) -> dict[str, Region]:
    """What a rank holds of each of its parameters, in the true (unpadded) tensor.

    Tensor parallelism splits its dim evenly, then data-parallel sharding cuts dim 0 of what is
    left as `torch.chunk` does. What lies in the padding of the vocabulary is left out. A tied
    embedding is with both ends of the pipeline.
    """
    place, layers = layout.place(rank), stage_layers(model, layout.stages)
    held: dict[str, Region] = {}
    for pattern, parameter in parameters_of(model).items():
        region = _region(parameter, model, layout, place)
        for stage in stages_of(layout, rank):
            held.update((name, region) for name in _names(pattern, stage, layers, model))
    return held


def _names(pattern: str, stage: int, layers: list[range], model: ModelConfig) -> list[str]:
    """The parameters of a stage that a row of the axes table stands for: the embedding is with the
    first layer, norm and head with the last."""
    if "*" in pattern:
        return [pattern.replace("*", str(layer)) for layer in layers[stage]]
    homes = {0 if pattern == EMBEDDING else len(layers) - 1}
    if pattern == own_name(model, HEAD):
        homes.add(len(layers) - 1)
    return [pattern] if stage in homes else []


def _region(parameter: Parameter, model: ModelConfig, layout: Layout, place: Place) -> Region:
    region = []
    split = sharded_dim(parameter)
    for dim, axis in enumerate(parameter.axes):
        size = axis.size(model)
        padded = padded_vocabulary(size, layout.tp) if axis is Axis.VOCAB else size
        start, stop = 0, padded
        if dim == split:
            share = padded // layout.tp
            start, stop = place.tp * share, (place.tp + 1) * share
        if dim == 0:
            chunk = -(-(stop - start) // layout.dp_shard)
            first = start + place.dp_shard * chunk
            start, stop = min(first, stop), min(first + chunk, stop)
        region.append(slice(min(start, size), min(stop, size)))
    return tuple(region)
