"""Tensor and sequence parallelism, read off the axes table.

Between the blocks the residual stream is split over the sequence. A weight whose output axis is
split reads the whole sequence (all-gather before), one whose input axis is split writes partial
sums (reduce-scatter behind); gains see their own positions.
"""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import (
    DTensor,
    Partial,
    Placement,
    Replicate,
    Shard,
    distribute_tensor,
)
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    PrepareModuleInput,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)

from teleflm.model.axes import Axis, Parameter, parameter_of
from teleflm.model.loss import Vocabulary
from teleflm.model.network import MLP, Attention, Embedding, TeleFLM
from teleflm.parallel.layout import TENSOR_PARALLEL, sharded_dim

_SEQUENCE = Shard(1)


def apply_tensor_parallel(network: TeleFLM, mesh: DeviceMesh) -> None:
    """Split a network (or a stage of one) over the tensor-parallel ranks of `mesh`."""
    plan: dict[str, ParallelStyle] = {}
    for name, _ in network.named_parameters(remove_duplicate=False):
        path, _, kind = name.rpartition(".")
        if kind == "weight":  # which its module's bias goes with
            plan[path] = _style(parameter_of(name), network.get_submodule(path))
    for path, module in network.named_modules():
        # Its linears read the same whole sequence: gathered once, at the door.
        if isinstance(module, Attention):
            plan[path] = _gather_first(4)
        elif isinstance(module, MLP):
            plan[path] = _gather_first(1)
    parallelize_module(network, mesh, plan)
    network.tie()


def _gather_first(inputs: int) -> ParallelStyle:
    rest = (None,) * (inputs - 1)
    return PrepareModuleInput(
        input_layouts=(_SEQUENCE, *rest), desired_input_layouts=(Replicate(), *rest)
    )


def _style(parameter: Parameter, module: nn.Module) -> ParallelStyle:
    dim = sharded_dim(parameter)
    if dim is None:
        # A norm by head sees this rank's heads (B, S, heads, d), at all positions.
        is_by_head = not parameter.is_stream_gain
        return SequenceParallel(sequence_dim=2 if is_by_head else 1, use_local_output=is_by_head)
    if isinstance(module, Embedding):
        return _ShardedEmbedding()
    if parameter.axes[0] is Axis.VOCAB:
        return _ShardedRows()
    return ColwiseParallel() if dim == 0 else RowwiseParallel(output_layouts=_SEQUENCE)


class _ShardedRows(ParallelStyle):
    """The rows over the ranks; of the head no more, since the loss reads the weight itself."""

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        whole = module.get_parameter("weight")
        weight = distribute_tensor(whole, device_mesh, [Shard(0)], src_data_rank=None)
        module.register_parameter("weight", nn.Parameter(weight))
        return module


class _ShardedEmbedding(_ShardedRows):
    """Each rank looks up its own rows, and the sums are split over the sequence.

    DTensor's own would make the gradient of all rows on each rank (torch 2.13), and sum the whole
    sequence on each where a mask follows.
    """

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        assert isinstance(module, Embedding)
        super()._apply(module, device_mesh)
        module.look_up = _own_rows
        # Behind the mask, which is laid out too.
        module.register_forward_hook(lambda _, __, embedded: local_part(embedded))
        return module


def _own_rows(tokens: Tensor, weight: Tensor) -> Tensor:
    assert isinstance(weight, DTensor)
    mesh, rows = weight.device_mesh, weight.to_local()
    own = tokens - mesh.get_local_rank() * len(rows)
    elsewhere = (own < 0) | (own >= len(rows))
    embedded = F.embedding(own.masked_fill(elsewhere, 0), rows)
    embedded = embedded.masked_fill(elsewhere[..., None], 0.0)
    # One rank has a token's row, so the sum rounds nothing.
    partial = DTensor.from_local(embedded, mesh, [Partial()], run_check=False)
    return partial.redistribute(placements=[_SEQUENCE])


def whole_sequence(hidden: Tensor) -> Tensor:
    """Every position of hidden states that are split over the sequence.

    Each rank makes its own part of their gradient, from its rows of the head.
    """
    if not isinstance(hidden, DTensor):
        return hidden
    gathered = hidden.redistribute(placements=[Replicate()])
    local: Tensor = gathered.to_local(grad_placements=[Partial()])
    return local


def local_part(tensor: Tensor) -> Tensor:
    """What this rank has of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


class ShardedVocabulary(Vocabulary):
    """Some rows of the head, the others on the other tensor-parallel ranks.

    Args:
        mesh: those ranks.
        vocab_size: tokens of the model, without padding.
        rows: rows on each rank, with padding.
    """

    def __init__(self, mesh: DeviceMesh, vocab_size: int, rows: int) -> None:
        self._group = mesh.get_group()
        self._ranks = mesh.size()
        self._vocab_size = vocab_size
        self.first = mesh.get_local_rank() * rows

    def rows(self, weight: Tensor) -> int:
        return min(max(self._vocab_size - self.first, 0), len(weight))

    def combine(self, normaliser: Tensor, score: Tensor) -> tuple[Tensor, Tensor]:
        pair = torch.cat([normaliser, score], dim=1)
        pairs = pair.new_empty(self._ranks, len(pair), 2)
        dist.all_gather(list(pairs.unbind()), pair, group=self._group)
        normalisers, scores = pairs.unbind(dim=2)
        return normalisers.logsumexp(dim=0)[:, None], scores.sum(dim=0)[:, None]

    def most_likely(self, score: Tensor, token: Tensor) -> Tensor:
        best = score.clone()
        dist.all_reduce(best, dist.ReduceOp.MAX, group=self._group)
        first = token.masked_fill(score < best, torch.iinfo(token.dtype).max)
        dist.all_reduce(first, dist.ReduceOp.MIN, group=self._group)
        return first


def spread_mask(values: Tensor, axis: Axis, mesh: DeviceMesh) -> DTensor:
    """A growth mask along `axis` (its whole size), placed as the weights that it multiplies."""
    placement: Placement = Replicate()
    if axis in TENSOR_PARALLEL:
        placement, values = Shard(0), values.chunk(mesh.size())[mesh.get_local_rank()]
    return DTensor.from_local(values, mesh, [placement], run_check=False)
