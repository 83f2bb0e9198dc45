"""Who holds what: a layout of tensor, pipeline and data parallel ranks, as plain arithmetic.

No process group is needed here, so that a laptop can ask what rank 417 of 896 would hold.
"""

from dataclasses import dataclass

from teleflm.config.model import ModelConfig
from teleflm.config.run import TrainingConfig
from teleflm.model.axes import (
    PARAMETERS,
    Axis,
    Parameter,
    layer_of,
    parameter_names,
    parameter_of,
)
from teleflm.model.region import Region, entries

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
    """The layers of each pipeline stage.

    A layer counts 1, embedding and head what they weigh against one; each further layer goes to
    the stage that is least loaded with it, so the heaviest stage is as light as can be.
    """
    per_layer = sum(
        _size(parameter, model) for pattern, parameter in PARAMETERS.items() if "*" in pattern
    )
    ends = {
        0: _size(PARAMETERS["model.embed_tokens.weight"], model) / per_layer,
        stages - 1: _size(PARAMETERS["lm_head.weight"], model) / per_layer,
    }
    counts = [1] * stages
    for _ in range(model.num_hidden_layers - stages):
        lightest = min(range(stages), key=lambda s: (counts[s] + ends.get(s, 0.0), s))
        counts[lightest] += 1
    starts = [sum(counts[:stage]) for stage in range(stages)]
    return [range(start, start + count) for start, count in zip(starts, counts, strict=True)]


def _size(parameter: Parameter, model: ModelConfig) -> int:
    return entries(tuple(slice(0, size) for size in parameter.shape(model)))


def stages_of(layout: Layout, rank: int) -> list[int]:
    """The pipeline stages of a rank, in the order of the layers."""
    return list(range(layout.place(rank).pp, layout.stages, layout.pp))


def stage_of(name: str, layers: list[range]) -> int:
    """The stage that holds a parameter: embedding with the first layer, norm and head with the
    last."""
    layer = layer_of(name)
    if layer is not None:
        return next(stage for stage, held in enumerate(layers) if layer in held)
    return 0 if name.startswith("model.embed_tokens") else len(layers) - 1


def micro_batch_of(training: TrainingConfig, layout: Layout) -> int:
    """Sequences at a time on a data-parallel rank: what is configured, else all of its share, or
    with a pipeline as many as leave each stage a micro-batch."""
    if training.micro_batch is not None:
        return training.micro_batch
    share = training.global_batch // layout.dp
    if layout.pp == 1:
        return share
    return next(micro for micro in range(share // layout.stages, 0, -1) if share % micro == 0)


def regions(layout: Layout, model: ModelConfig, rank: int) -> dict[str, Region]:
    """What a rank holds of each of its parameters, in the true (unpadded) tensor.

    Tensor parallelism splits its dim evenly, then data-parallel sharding cuts dim 0 of what is
    left as `torch.chunk` does. What lies in the padding of the vocabulary is left out.
    """
    place, mine = layout.place(rank), set(stages_of(layout, rank))
    layers = stage_layers(model, layout.stages)
    held: dict[str, Region] = {}
    for name in parameter_names(model):
        if stage_of(name, layers) in mine:
            held[name] = _region(parameter_of(name), model, layout, place)
    return held


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
