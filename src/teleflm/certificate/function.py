"""The function of two models: their logits, and their residual streams layer by layer."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from teleflm.certificate.record import FunctionError
from teleflm.config.model import ModelConfig
from teleflm.errors import CheckpointError
from teleflm.growth.event import Event
from teleflm.growth.fold import growth_map
from teleflm.growth.state import LazyState
from teleflm.model.axes import Axis
from teleflm.model.network import TeleFLM


def random_tokens(
    before: ModelConfig, after: ModelConfig, shape: tuple[int, int], seed: int
) -> Tensor:
    """Random token ids that both models can read.

    Raises:
        CheckpointError: their vocabularies differ.
    """
    if before.vocab_size != after.vocab_size:
        raise CheckpointError(
            f"vocabularies of {before.vocab_size} and {after.vocab_size} tokens: these two are not "
            "parent and child; name the checkpoint that was grown and the grown one"
        )
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(before.vocab_size, shape, generator=generator)


@torch.no_grad()
def function_error(
    network: Callable[[LazyState, torch.dtype], TeleFLM],
    parent: LazyState,
    child: LazyState,
    growths: Sequence[Event],
    tokens: Tensor,
) -> FunctionError:
    """Parent and child, in float64 and in float32, on tokens (B, S).

    Args:
        network: makes that of a state, in a precision.
        parent, child: the two states.
        growths: what lies between the two; none where they are of one shape.
        tokens: what both read.
    """
    states = parent, child
    (before, before_streams), (after, after_streams) = (
        _observed(network(state, torch.float64), tokens) for state in states
    )
    layers: tuple[float, ...] = ()
    if growths or parent.model.hidden_size == child.model.hidden_size:
        layers = _stream_errors(before_streams, after_streams, growths)
    before32, after32 = (network(state, torch.float32)(tokens) for state in states)
    return FunctionError(
        max_relative_logit_error=_relative(before, after),
        dtype="float64",
        float32_max_relative_logit_error=_relative(before32, after32),
        float32_rounding=_relative(before, before32),
        layers=layers,
    )


@torch.no_grad()
def relative_error(parent: TeleFLM, child: TeleFLM, tokens: Tensor) -> float:
    """max |Δ logit| / max |parent's logit| over tokens (B, S)."""
    return _relative(parent(tokens), child(tokens))


def _relative(before: Tensor, after: Tensor) -> float:
    return ((after - before).abs().max() / before.abs().max()).item()


def _observed(network: TeleFLM, tokens: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Logits, and the residual stream behind the embedding and behind each layer."""
    streams: list[Tensor] = []

    def before_first(_: Any, inputs: tuple[Tensor, ...]) -> None:
        streams.append(inputs[0])

    def behind(_: Any, __: Any, output: Tensor) -> None:
        streams.append(output)

    blocks = list(network.model.layers)
    handles = [blocks[0].register_forward_pre_hook(before_first)]
    handles += [block.register_forward_hook(behind) for block in blocks]
    try:
        return network(tokens), streams
    finally:
        for handle in handles:
            handle.remove()


def _stream_errors(
    before: Sequence[Tensor], after: Sequence[Tensor], growths: Sequence[Event]
) -> tuple[float, ...]:
    """Of the child's stream from what the parent's makes of it: entries in their new places, and
    zeros in new ones."""
    places, layers = torch.arange(before[0].shape[-1]), list(range(len(before) - 1))
    for event in growths:
        sources = growth_map(event).sources(Axis.HIDDEN)
        places = torch.where(sources >= 0, places[sources], -1)
        layers = [event.layers[layer] for layer in layers]
    errors = []
    for old, new in zip(range(len(before)), [0, *(layer + 1 for layer in layers)], strict=True):
        expected = before[old][..., places] * (places >= 0)
        errors.append(_relative(expected, after[new]))
    return tuple(errors)
