"""A parameter as one rank has it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from teleflm.model.region import Region, region_shape


@dataclass(frozen=True)
class Shard:
    """A parameter, or what this rank holds of it.

    Attributes:
        name: Llama's key.
        parameter: what the network computes with; with many ranks a DTensor.
        local: the rank's own storage, which the optimizer updates; the parameter itself in one
            process.
        region: where it stands in the true tensor.
        is_counted: no other rank counts these entries in a norm.
    """

    name: str
    parameter: nn.Parameter
    local: nn.Parameter
    region: Region
    is_counted: bool

    def held(self, tensor: Tensor) -> Tensor:
        """A view of a tensor like `local` without the padding of the vocabulary."""
        return tensor[tuple(slice(size) for size in region_shape(self.region))]

    @property
    def gradient(self) -> Tensor:
        """The gradient of `local`, which a backward pass has made."""
        gradient = self.local.grad
        assert gradient is not None, "every parameter takes part in the forward pass"
        return gradient

    def take_gradient(self) -> None:
        """Bring the gradient that the network made to `local`."""
        if self.local is self.parameter:
            return
        gradient = self.parameter.grad
        assert isinstance(gradient, DTensor), "every parameter takes part in the forward pass"
        self.local.grad = gradient.to_local()
        self.parameter.grad = None


def square_norm(shards: Sequence[Shard], weights: Sequence[float]) -> Tensor:
    """Σ weight · ‖gradient‖² over the shards that this rank counts, 0-dim float64."""
    device = shards[0].local.device
    counted = [(s, w) for s, w in zip(shards, weights, strict=True) if s.is_counted]
    if not counted:
        return torch.zeros((), dtype=torch.float64, device=device)
    norms = torch.stack(torch._foreach_norm([shard.gradient for shard, _ in counted])).double()
    factors = torch.tensor([weight for _, weight in counted], dtype=torch.float64, device=device)
    return norms.square() @ factors
