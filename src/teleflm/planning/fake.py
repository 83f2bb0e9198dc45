"""One rank of a world that is not there.

Its collectives go into the void and its tensors have shapes but no values, so that the real code
runs at any size, allocates nothing, and all it would have done can be counted.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest import mock
from weakref import finalize

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.tensor import DTensor
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode

from teleflm.model.device import as_if_on
from teleflm.parallel.materialise import materialising_in


class FakeTensors(TorchDispatchMode):
    """Tensors made inside of it have no values; where code asks for one, it is 1.

    So losses are sound, and pipeline stages agree that all know their shapes.
    """

    def __init__(self) -> None:
        super().__init__()
        # Weights that are laid out have real tensors in them beside the fake ones.
        self._mode = FakeTensorMode(allow_non_fake_inputs=True)

    def __enter__(self) -> "FakeTensors":
        self._mode.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._mode.__exit__(*error)

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        if any(issubclass(kind, DTensor) for kind in types):
            # What it computes with comes by here next.
            return NotImplemented
        if func is torch.ops.aten._local_scalar_dense.default:
            dtype = args[0].dtype
            return 1.0 if dtype.is_floating_point else True if dtype is torch.bool else 1
        return func(*args, **(kwargs or {}))


def _rms_norm_of_cuda(
    x: Tensor, shape: torch.Size, weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    """CUDA does it in one kernel, the CPU in several; keeps what CUDA keeps."""
    if torch.is_autocast_enabled("cpu") and weight is not None:
        x, weight = x.float(), weight.float()  # autocast's rule for norms on CUDA
    return torch._fused_rms_norm(x, shape, weight, eps)[0]


@contextmanager
def fake_world(rank: int, ranks: int, device: str) -> Iterator[FakeTensors]:
    """A process group of `ranks`, of which this process is `rank` and the only one.

    Args:
        rank, ranks: this rank and all.
        device: the kind that the code takes the CPU for, `cuda` or `cpu`.

    Yields:
        What weights are materialised in, and the step is to run in.
    """
    tensors = FakeTensors()
    dist.init_process_group("fake", rank=rank, world_size=ranks, store=FakeStore())
    try:
        # Patched and no mode: those are off in a backward pass, where blocks are computed again.
        patched = mock.patch.object(F, "rms_norm", _rms_norm_of_cuda)
        kernels = patched if device == "cuda" else nullcontext()
        with as_if_on(device), materialising_in(tensors), kernels, _sends_that_keep():
            yield tensors
    finally:
        dist.destroy_process_group()


@contextmanager
def _sends_that_keep() -> Iterator[None]:
    """What is sent lives until its sending is waited for, which some schedules do last of all."""
    send = dist.isend

    def isend(tensor: Tensor, *where: Any, **how: Any) -> Any:
        work = send(tensor, *where, **how)
        finalize(work, lambda _: None, tensor)
        return work

    with (
        mock.patch.object(dist, "isend", isend),
        mock.patch.object(dist.distributed_c10d, "isend", isend),
    ):
        yield
