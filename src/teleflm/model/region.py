"""The part of a tensor that one process holds."""

from collections.abc import Sequence

from torch import Tensor

Region = tuple[slice, ...]
"""A start and a stop on every dim of the whole tensor; empty where both are the same."""


def whole(shape: Sequence[int]) -> Region:
    """The region that is all of a tensor of this shape."""
    return tuple(slice(0, size) for size in shape)


def region_shape(region: Region) -> tuple[int, ...]:
    """The shape of what a region holds."""
    return tuple(part.stop - part.start for part in region)


def entries(region: Region) -> int:
    """How many entries a region holds."""
    count = 1
    for size in region_shape(region):
        count *= size
    return count


def part_of(tensor: Tensor, region: Region | None) -> Tensor:
    """A view of a whole tensor's region; all of it where that is None."""
    return tensor if region is None else tensor[region]
