"""What each rank holds, computes and sends, by closed formulas."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import chain

from teleflm.config.run import RunConfig
from teleflm.model.axes import PARAMETERS
from teleflm.parallel.layout import Layout, micro_batch_of, padded_vocabulary, stage_layers
from teleflm.parallel.memory import memory
from teleflm.planning.counting import Traffic


@dataclass(frozen=True)
class Closed:
    """A rank's share of a step.

    Attributes:
        parameters: that it holds.
        kept: bytes from step to step: parameters, gradients, optimizer.
        activations: bytes at the peak beyond those.
        flops: of a step, recomputation included.
        collectives: by mesh axis and kind.
        micro_batches: in a step.
    """

    parameters: int
    kept: Mapping[str, int]
    activations: int
    flops: int
    collectives: Mapping[str, Traffic]
    micro_batches: int

    @property
    def total(self) -> int:
        """Bytes at the peak."""
        return sum(self.kept.values()) + self.activations


def closed_form(
    config: RunConfig, layout: Layout, pipeline_rank: int, device: str = "cuda"
) -> Closed:
    """Of the first rank of a pipeline rank."""
    model, length = config.final_model, config.data.sequence_length
    rank = pipeline_rank * layout.ranks // layout.pp
    bytes_each = 8 if config.training.dtype == "fp64" else 4
    kept = asdict(memory(model, layout, rank, bytes_each))
    stages = list(range(pipeline_rank, layout.stages, layout.pp))
    by_stage = stage_layers(model, layout.stages)
    layers = len(list(chain.from_iterable(by_stage[stage] for stage in stages)))
    micro = micro_batch_of(config.training, layout, config.parallel.schedule)
    count = config.training.global_batch // layout.dp // micro
    tokens = micro * length
    kind = config.parallel.activation_checkpointing
    width = model.hidden_size
    layer = sum(
        _entries(parameter.shape(model)) for name, parameter in PARAMETERS.items() if "*" in name
    )
    head = padded_vocabulary(model.vocab_size, layout.tp) * width
    attention = 2 * model.num_attention_heads * model.head_dim * length
    passes = 8 if kind == "full" else 6
    flops = layers * passes * (layer + attention) * tokens * count // layout.tp
    ends = (stages[0] == 0) + (stages[-1] == layout.stages - 1)
    if stages[-1] == layout.stages - 1:
        flops += 6 * head * tokens * count // layout.tp
    weights = (layers * layer + ends * head) // layout.tp
    stream = 2 * tokens * width
    collectives = {}
    if layout.tp > 1:
        calls = layers * count * (4 if kind != "full" else 6)
        collectives["tp.all_gather"] = Traffic(calls, calls * stream)
        collectives["tp.reduce_scatter"] = Traffic(calls, calls * stream)
    if layout.pp > 1:
        collectives["pp.send"] = Traffic(count * 2, count * 2 * stream // layout.tp)
    if layout.dp_shard > 1:
        gathers = 1 if layout.pp > 1 else 2 * count
        collectives["dp_shard.all_gather"] = Traffic(layers * gathers, 2 * weights * gathers)
        collectives["dp_shard.reduce_scatter"] = Traffic(layers, 4 * weights)
    in_flight = min(count, layout.pp - pipeline_rank)
    per_layer = {"none": 27, "selective": 16, "full": 2}[kind] * stream // 2
    if kind == "full":
        per_layer //= layout.tp
    activations = layers * in_flight * per_layer
    if stages[-1] == layout.stages - 1:
        activations += 10 * tokens * head // width // layout.tp
    return Closed(
        parameters=kept["parameters"] // bytes_each,
        kept=kept,
        activations=activations + (4 * weights if layout.dp_shard > 1 else 2 * weights),
        flops=flops,
        collectives=collectives,
        micro_batches=count,
    )


def _entries(shape: tuple[int, ...]) -> int:
    return shape[0] * (shape[1] if len(shape) > 1 else 1)
