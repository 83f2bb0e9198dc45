"""From a laid-out network without storage to one with memory, whose weights are to be filled in."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar

import torch
from torch import nn

from teleflm.config.model import ModelConfig
from teleflm.model.network import TeleFLM
from teleflm.model.rope import Rope

_memory: ContextVar[AbstractContextManager[object] | None] = ContextVar("memory", default=None)


def materialise(
    module: nn.Module,
    network: TeleFLM,
    model: ModelConfig,
    device: torch.device,
) -> None:
    """Give a module on the meta device its memory.

    Args:
        module: the network, or what FSDP knows it by: its shards would be others elsewhere.
        network: the network in it.
        model: its shape, without padding.
        device: of its tensors.
    """
    with _memory.get() or nullcontext():
        module.to_empty(device=device)
        network.tie()
        network.model.rope = Rope(model)
        network.set_multipliers(model.input_mult, model.logit_multiplier)


@contextmanager
def materialising_in(memory: AbstractContextManager[object]) -> Iterator[None]:
    """Have networks materialise inside of a context: of a dry run, among fake tensors."""
    token = _memory.set(memory)
    try:
        yield
    finally:
        _memory.reset(token)
