"""The kind of device that code is written for, where kinds differ."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

_as_if_on: ContextVar[str | None] = ContextVar("as_if_on", default=None)


def device_kind(tensor: Tensor) -> str:
    """`cuda` or `cpu`: where a tensor is, or where a dry run takes it to be."""
    if torch.compiler.is_compiling():
        # A compiler cannot follow a context variable, and no dry run has compiled blocks.
        return tensor.device.type
    return _as_if_on.get() or tensor.device.type


@contextmanager
def as_if_on(kind: str) -> Iterator[None]:
    """Run the code of another kind of device, on tensors that are on the CPU."""
    token = _as_if_on.set(kind)
    try:
        yield
    finally:
        _as_if_on.reset(token)
