"""The one recipe: how a stage's network is laid out on a mesh, in the one order that works."""

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from teleflm.config.model import ModelConfig
from teleflm.config.run import ParallelConfig, TrainingConfig
from teleflm.model.loss import Vocabulary
from teleflm.model.precision import TORCH_DTYPES
from teleflm.parallel.blocks import wrap_blocks
from teleflm.parallel.layout import padded_vocabulary, stage_layers, stages_of
from teleflm.parallel.materialise import materialise
from teleflm.parallel.mesh import Mesh
from teleflm.parallel.stage import Stage, stage_network
from teleflm.parallel.tensor import ShardedVocabulary, apply_tensor_parallel


@dataclass(frozen=True)
class Recipe:
    """How to lay a network out.

    Attributes:
        parallel: activation checkpointing, and the precision of what travels.
        training: precision of the computation, and whether blocks are compiled.
        weights: dtype of the master weights.
    """

    parallel: ParallelConfig
    training: TrainingConfig
    weights: torch.dtype

    @property
    def compiled(self) -> bool:
        """Whether blocks go through torch.compile: not where nobody has settled what `auto` is."""
        return self.training.compile is True

    @property
    def gathered(self) -> torch.dtype:
        """What weights travel in, and with them the residual stream; products may be in less."""
        given = self.parallel.gather_dtype
        return self.weights if given is None else TORCH_DTYPES[given]

    @property
    def reduced(self) -> torch.dtype:
        """What gradients travel in. Sums of many ranks: in the masters' precision, also where
        weights travel in less."""
        given = self.parallel.reduce_dtype
        return self.weights if given is None else TORCH_DTYPES[given]


def build_stages(model: ModelConfig, mesh: Mesh, recipe: Recipe) -> list[Stage]:
    """This rank's pipeline stages, laid out, with weights yet to be filled in."""
    # FSDP warns of what leaves tensor parallelism as a view; nothing writes into it in place.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    layout = mesh.layout
    rows = padded_vocabulary(model.vocab_size, layout.tp)
    padded = model.model_copy(update={"vocab_size": rows})
    vocabulary = Vocabulary()
    if layout.tp > 1:
        vocabulary = ShardedVocabulary(mesh.tp, model.vocab_size, rows // layout.tp)
    layers = stage_layers(model, layout.stages)
    stages = []
    for index in stages_of(layout, mesh.rank):
        ends = {"is_first": index == 0, "is_last": index == layout.stages - 1}
        network = stage_network(padded, layers[index], **ends)
        stage = Stage(network, vocabulary, **ends, precision=recipe.training.precision)
        _lay_out(stage, mesh, recipe)
        materialise(stage, network, model, mesh.device)
        stages.append(stage)
    return stages


def _lay_out(stage: Stage, mesh: Mesh, recipe: Recipe) -> None:
    network = stage.network.to(recipe.weights)
    # First what each rank computes of a layer: everything after sees local shapes.
    if mesh.layout.tp > 1:
        apply_tensor_parallel(network, mesh.tp)
    kind = recipe.parallel.activation_checkpointing
    # Compiled code has its own rank's offsets and the names of its process groups in it: another
    # rank, or another layout, would take it from the cache and compute something else.
    rank = f"rank {mesh.rank} of {mesh.layout}, group {mesh.tp.get_group().group_name}"
    wrap_blocks(network, kind, compiled=recipe.compiled, rank=rank)
    _shard(stage, mesh, recipe)


def _shard(stage: Stage, mesh: Mesh, recipe: Recipe) -> None:
    """Masters, gradients and moments sharded over the data-parallel ranks, a group a block."""
    policy = MixedPrecisionPolicy(
        param_dtype=recipe.gathered, reduce_dtype=recipe.reduced, cast_forward_inputs=False
    )
    # A pipeline runs many micro-batches forward before it goes backward: gathering again for each
    # would cost more than the memory is worth.
    options: dict[str, Any] = {
        "mesh": mesh.dp,
        "mp_policy": policy,
        "reshard_after_forward": mesh.layout.pp == 1,
    }
    decoder = stage.network.model
    groups = [*decoder.layers, stage]
    # What is tied is gathered once for both, with the head.
    if stage.is_first and not (stage.is_last and not stage.network.config.has_head):
        groups.insert(0, decoder.embed_tokens)
    for module in groups:
        fully_shard(module, **options)
    for module in stage.modules():
        if isinstance(module, FSDPModule):
            # The loss is divided by the whole batch's tokens: gradients are summed over ranks.
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
