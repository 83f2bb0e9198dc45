"""A stage of PyTorch's pipelines whose memory follows the micro-batches in flight.

Nothing else here touches what is private to PyTorch's pipelines. `tests/parallel/test_private.py`
names what a new release moves.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.pipelining import PipelineStage
from torch.torch_version import TorchVersion


class _LateBuffers(PipelineStage):
    """Receives into buffers that exist while they are needed.

    PyTorch's own stage does so from 2.15 on. Before, it makes those of all micro-batches before the
    first, and keeps them: gigabytes where a step has a thousand. Here the ones that it makes have
    no memory, and a real one takes the place of each from when its receive is posted until what was
    received is handed on. What computes with it keeps it from then on. None is used twice, so
    nothing that is still to be read can be written over.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._ends: dict[int, Any] = {}

    def _prepare_forward_infra(self, *args: Any, **kwargs: Any) -> Any:
        return self._without_memory(super()._prepare_forward_infra, *args, **kwargs)

    def _prepare_backward_infra(self, *args: Any, **kwargs: Any) -> Any:
        return self._without_memory(super()._prepare_backward_infra, *args, **kwargs)

    def _without_memory(self, prepare: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        device, self.device = self.device, torch.device("meta")
        try:
            return prepare(*args, **kwargs)
        finally:
            self.device = device

    def _get_recv_ops(self, recv_infos: tuple[Any, ...]) -> list[dist.P2POp]:
        self._place(recv_infos, self.device)
        operations: list[dist.P2POp] = super()._get_recv_ops(recv_infos)
        return operations

    def _retrieve_recv_activations(self, fwd_chunk_id: int) -> tuple[Tensor, ...]:
        activations = super()._retrieve_recv_activations(fwd_chunk_id)
        self._place(self.args_recv_info[fwd_chunk_id], torch.device("meta"))
        # PyTorch 2.11 says so of the buffers themselves, as it makes them.
        return tuple(activation.requires_grad_(self.has_backward) for activation in activations)

    def _retrieve_recv_grads(self, bwd_chunk_id: int) -> tuple[Tensor, ...]:
        gradients: tuple[Tensor, ...] = super()._retrieve_recv_grads(bwd_chunk_id)
        self._place(self.grad_recv_info[bwd_chunk_id], torch.device("meta"))
        return gradients

    def backward_one_chunk(
        self,
        bwd_chunk_id: int,
        loss: Tensor | None = None,
        full_backward: bool = True,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        if loss is not None and not full_backward:
            # PyTorch 2.11 takes the loss off its graph before the weights' half of the backward
            # pass, and an autograd.Function at the graph's end, as ours is, would go with it.
            self._ends[bwd_chunk_id] = loss.grad_fn
        outputs, _ = self.fwd_cache[bwd_chunk_id]
        super().backward_one_chunk(bwd_chunk_id, loss, full_backward, *args, **kwargs)
        if full_backward:
            # PyTorch 2.11 keeps what it sent to the step's end, and its graph what was received.
            for output in outputs:
                output.detach_()

    def backward_weight_one_chunk(self, bwd_chunk_id: int, *args: Any, **kwargs: Any) -> None:
        super().backward_weight_one_chunk(bwd_chunk_id, *args, **kwargs)
        self._ends.pop(bwd_chunk_id, None)

    @staticmethod
    def _place(recv_infos: Sequence[Any], device: torch.device) -> None:
        """Put a new buffer in the place of each."""
        for info in recv_infos:
            # What a first stage reads comes from the batch and has none.
            if getattr(info, "buffer", None) is not None:
                info.buffer = torch.empty_like(info.buffer, device=device)


LETS_GO = TorchVersion(torch.__version__) >= "2.15"
"""Whether PyTorch's stages make receive buffers late, and its schedules wait on the way for the
activations that they send. Before, all but 1F1B keep those to the step's end."""
_Receiving: Any = PipelineStage if LETS_GO else _LateBuffers
# What is kept of each micro-batch until its backward pass, by its number.
_KEPT = "_forward_chunk_states" if LETS_GO else "fwd_cache"


class InFlightStage(_Receiving):
    """Keeps nothing of a micro-batch that has been through it, and receives as late as it can."""

    def backward_one_chunk(
        self, bwd_chunk_id: int, loss: Tensor | None = None, *args: Any, **kwargs: Any
    ) -> None:
        super().backward_one_chunk(bwd_chunk_id, loss, *args, **kwargs)
        if loss is not None:
            # The schedule keeps it to the step's end, and its graph what the stage was given.
            loss.detach_()
        if not self.has_backward:
            # An evaluation goes through the same schedule, where PyTorch lets go of nothing.
            del getattr(self, _KEPT)[bwd_chunk_id]
