"""Where new layers go."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from teleflm.errors import GrowthError
from teleflm.model.network import TeleFLM


@torch.no_grad()
def layer_distances(network: TeleFLM, tokens: Tensor) -> list[float]:
    """How far each layer moves the stream: mean ‖output − input‖ / ‖input‖ over tokens (B, S).

    A layer that hardly moves it is the one a newly added neighbour disturbs least (the
    layer-distance placement of MSG, arXiv 2305.02869).
    """
    distances: list[float] = []

    def measure(_: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        before = inputs[0].double()
        moved = (output.double() - before).norm(dim=-1)
        distances.append((moved / before.norm(dim=-1)).mean().item())

    handles = [block.register_forward_hook(measure) for block in network.model.layers]
    try:
        network.hidden(tokens)
    finally:
        for handle in handles:
            handle.remove()
    return distances


def place_layers(
    old: int, new: int, place: str | Sequence[int], distances: Sequence[float] | None
) -> tuple[int, ...]:
    """For each of `old` layers its index among `new`.

    Args:
        old, new: numbers of layers.
        place: `distance` (needs `distances`), `even`, `stack` (all on top), or for each added
            layer the old layer that it follows.
        distances: one figure an old layer, see `layer_distances`.

    Raises:
        GrowthError: a list of the wrong length or with a layer that is not there.
    """
    added = new - old
    followed = _followed(old, added, place, distances)
    index, result = 0, []
    for layer in range(old):
        result.append(index)
        index += 1 + followed.count(layer)
    return tuple(result)


def _followed(
    old: int, added: int, place: str | Sequence[int], distances: Sequence[float] | None
) -> list[int]:
    """The old layer that each added layer follows."""
    if place == "stack":
        return [old - 1] * added
    if place == "even":
        return [(2 * i + 1) * old // (2 * added) for i in range(added)]
    if place == "distance":
        if distances is None:
            raise GrowthError("place distance needs data to measure the layers on; give --data")
        nearest = sorted(range(old), key=lambda layer: (distances[layer], layer))
        return [nearest[i % old] for i in range(added)]
    listed = [int(layer) for layer in place]
    if len(listed) != added or not all(0 <= layer < old for layer in listed):
        raise GrowthError(
            f"place lists {listed}; it must name for each of the {added} new layers the old layer "
            f"that it follows, 0 to {old - 1}"
        )
    return listed


def copied_layers(layers: Sequence[int], new: int, place: str | Sequence[int]) -> tuple[int, ...]:
    """For each of `new` layers the old one that it holds: itself, or for an added one the layer
    that it follows; stacked on top they are the old ones over again, from the first.

    Args:
        layers: for each old layer its index among the new ones, from `place_layers`.
    """
    if place == "stack":
        return tuple(index % len(layers) for index in range(new))
    return tuple(sum(layer <= index for layer in layers) - 1 for index in range(new))
