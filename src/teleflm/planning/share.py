"""What one rank has of the model and of a micro-batch, in numbers."""

from dataclasses import dataclass
from functools import lru_cache
from math import prod

from teleflm.config.growth import GrowthConfig
from teleflm.config.model import ModelConfig
from teleflm.config.run import PipelineSchedule, Recomputation, RunConfig
from teleflm.growth.fold import dim_masks
from teleflm.growth.maps import GrowthMap
from teleflm.growth.place import place_layers
from teleflm.growth.plan import growth_steps
from teleflm.model.axes import Axis, parameters_of
from teleflm.model.loss import chunk_rows
from teleflm.parallel.layout import (
    Layout,
    micro_batch_of,
    padded_vocabulary,
    sharded_dim,
    stage_layers,
)
from teleflm.parallel.recipe import Recipe
from teleflm.training.prepare import master_dtype


@dataclass(frozen=True)
class Share:
    """A rank's part, after tensor parallelism.

    Attributes:
        layout, schedule, recomputation: as in the run.
        pipeline_rank: where it stands.
        layers: how many, in each of its stages.
        has_embedding, has_head: whether it is first, and last.
        tied: whether the embedding is the head too.
        qk_norm: whether queries and keys have norms by head.
        micro_batches: in a step.
        tokens: of a micro-batch.
        sequence: positions of a sequence.
        hidden, head_dim, heads_width, groups_width, ffn: widths.
        block_matrices, block: entries of a block's matrices, and of all its parameters.
        windowed: in each of its stages, layers whose window is narrower than a sequence.
        masked: of each of its layers, by stage, entries of the matrices that growth masks multiply.
        embedding, head: entries of each.
        loss_rows: tokens whose logits exist at a time.
        master, stream, reduced: bytes of a master weight; of a weight as gathered, which is that of
            the residual stream; of a gradient as it travels.
        compute, wide: bytes in which products and norms are computed.
        norm_keeps: times its input that a norm keeps.
        attention: bytes in which attention is computed, on a CPU as wide as norms.
    """

    layout: Layout
    schedule: PipelineSchedule
    recomputation: Recomputation
    pipeline_rank: int
    layers: tuple[int, ...]
    has_embedding: bool
    has_head: bool
    tied: bool
    qk_norm: bool
    micro_batches: int
    tokens: int
    sequence: int
    hidden: int
    head_dim: int
    heads_width: int
    groups_width: int
    ffn: int
    block_matrices: int
    block: int
    windowed: tuple[int, ...]
    masked: tuple[tuple[int, ...], ...]
    embedding: int
    head: int
    loss_rows: int
    master: int
    stream: int
    reduced: int
    compute: int
    wide: int
    norm_keeps: int
    attention: int

    @property
    def own_tokens(self) -> int:
        """Of a micro-batch where the stream is split over the sequence."""
        return self.tokens // self.layout.tp

    def begins_in(self, stage: int) -> bool:
        """Whether the model begins in this one of the rank's stages."""
        return self.has_embedding and stage == 0

    def ends_in(self, stage: int) -> bool:
        """Whether the model ends in it."""
        return self.has_head and stage == len(self.layers) - 1

    @property
    def root(self) -> int:
        """Entries of the last norm and the head, where it has them."""
        return (self.head + self.hidden) * self.has_head

    @property
    def groups(self) -> list[int]:
        """Entries of what travels together between data-parallel ranks. A tied embedding goes with
        the head where both are here."""
        is_one = self.tied and self.has_head
        ends = [self.embedding] * (self.has_embedding and not is_one) + [self.root] * self.has_head
        return [self.block] * sum(self.layers) + ends

    @property
    def splits_backward(self) -> bool:
        """Whether weights' gradients are computed later than what goes on to the stage before."""
        return self.layout.pp > 1 and self.schedule == "zero_bubble"

    @property
    def casts(self) -> bool:
        """Whether each micro-batch makes its own copy of the weights to compute with."""
        return self.compute != self.stream


def share_of(config: RunConfig, layout: Layout, pipeline_rank: int, device: str) -> Share:
    """A rank's part; see `closed_form`."""
    model, training, parallel = config.final_model, config.training, config.parallel
    padded = model.model_copy(update={"vocab_size": padded_vocabulary(model.vocab_size, layout.tp)})
    recipe = Recipe(parallel, training, master_dtype(config))
    micro = micro_batch_of(training, layout, parallel.schedule)
    length = config.data.sequence_length
    stages = stage_layers(model, layout.stages)[pipeline_rank :: layout.pp]
    masked = _masked(config.model, config.growth, layout.tp)
    is_narrow = model.sliding_window is not None and model.sliding_window < length
    windowed = set(model.sliding_layers if is_narrow else ())
    # One process alone gathers nothing.
    alone = layout.ranks == 1
    stream = recipe.weights.itemsize if alone else recipe.gathered.itemsize
    compute = 2 if training.precision == "bf16" else stream
    tokens, rows = micro * length, padded.vocab_size // layout.tp
    return Share(
        layout=layout,
        schedule=parallel.schedule,
        recomputation=parallel.activation_checkpointing,
        pipeline_rank=pipeline_rank,
        layers=tuple(map(len, stages)),
        has_embedding=pipeline_rank == 0,
        has_head=pipeline_rank == layout.pp - 1,
        tied=not model.has_head,
        qk_norm=model.qk_norm,
        micro_batches=training.global_batch // layout.dp // micro,
        tokens=tokens,
        sequence=length,
        hidden=model.hidden_size,
        head_dim=model.head_dim,
        heads_width=Axis.HEADS.size(model) // layout.tp,
        groups_width=Axis.KV_HEADS.size(model) // layout.tp,
        ffn=model.intermediate_size // layout.tp,
        block_matrices=_block_entries(padded, layout.tp, matrices_only=True),
        block=_block_entries(padded, layout.tp, matrices_only=False),
        windowed=tuple(len(windowed.intersection(layers)) for layers in stages),
        masked=tuple(tuple(masked.get(layer, 0) for layer in layers) for layers in stages),
        embedding=rows * model.hidden_size,
        head=rows * model.hidden_size,
        loss_rows=min(tokens, chunk_rows(rows, device)),
        master=master_dtype(config).itemsize,
        stream=stream,
        reduced=recipe.weights.itemsize if alone else recipe.reduced.itemsize,
        compute=compute,
        wide=max(compute, 4),
        norm_keeps=2 if device == "cuda" else 1,
        attention=compute if device == "cuda" else max(compute, 4),
    )


def _block_entries(model: ModelConfig, tp: int, *, matrices_only: bool) -> int:
    return sum(
        prod(parameter.shape(model)) // (tp if sharded_dim(parameter) is not None else 1)
        for pattern, parameter in parameters_of(model).items()
        if "*" in pattern and (parameter.is_matrix or not matrices_only)
    )


@lru_cache(maxsize=64)
def _masked(parent: ModelConfig, growth: GrowthConfig | None, tp: int) -> dict[int, int]:
    """Entries of matrices that masks multiply at the beginning of a growth's ramp, by layer. As in
    the dry run new layers go in evenly."""
    steps = growth_steps(parent, growth.to, growth.width, growth.depth) if growth else []
    if not steps or steps[-1].operator != "mask":
        return {}
    old, new = steps[-1].parent, steps[-1].child
    layers = place_layers(old.num_hidden_layers, new.num_hidden_layers, "even", None)
    opening = GrowthMap("mask", old, new, tuple(layers))
    return {
        layer: sum(
            prod(parameter.shape(new)) // (tp if sharded_dim(parameter) is not None else 1)
            for pattern, parameter in parameters_of(new).items()
            if "*" in pattern
            and any(dim_masks(opening, pattern.replace("*", str(layer)), parameter))
        )
        for layer in range(new.num_hidden_layers)
    }
