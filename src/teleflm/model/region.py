"""The part of a tensor that one process holds."""

from collections.abc import Iterator, Sequence

from torch import Tensor

# Few enough that all passes over them find them in the processor's cache.
_CACHED_ENTRIES = 1 << 16

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


def inside(part: Region, region: Region) -> Region:
    """Where a part of a region lies in what that holds."""
    return tuple(
        slice(own.start - side.start, own.stop - side.start)
        for own, side in zip(part, region, strict=True)
    )


def part_of(tensor: Tensor, region: Region | None) -> Tensor:
    """A view of a whole tensor's region; all of it where that is None."""
    return tensor if region is None else tensor[region]


def row_stretches(shape: Sequence[int], entries_at_a_time: int) -> list[Region]:
    """A tensor of this shape in regions of whole rows that have about so many entries each."""
    rest = whole(shape[1:])
    rows = max(1, entries_at_a_time // max(1, entries(rest)))
    return [
        (slice(start, min(start + rows, shape[0])), *rest) for start in range(0, shape[0], rows)
    ]


def cached_rows(rows: slice, columns: int) -> Iterator[slice]:
    """Rows of a matrix in short stretches: work of many passes is quicker on one after another."""
    at_a_time = max(1, _CACHED_ENTRIES // columns)
    for start in range(rows.start, rows.stop, at_a_time):
        yield slice(start, min(start + at_a_time, rows.stop))
