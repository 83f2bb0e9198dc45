"""The key-value cache of rows that are written together."""

from collections.abc import Sequence

import torch
from torch import Tensor

# Columns that are added at a time. A step reads the whole cache, so that a copy of it every so
# many steps is no work to speak of, and at most so many columns stand empty.
PIECE = 256


class Cache:
    """Keys and values of all layers, (B, G, columns, d) each, for rows of different length.

    The newest position of each row is in the last column in use, whatever its number, so that a
    step writes one column. What stands before a shorter row is zero, and `seen` leaves it out.
    """

    def __init__(self, layers: int, lengths: Sequence[int]) -> None:
        """Room for rows of these lengths, to be filled by `place`."""
        self.lengths = list(lengths)
        self.columns = max(lengths)
        self._kept: list[tuple[Tensor, Tensor] | None] = [None] * layers

    @property
    def capacity(self) -> int:
        """Columns that there is room for: whole pieces."""
        return -(-self.columns // PIECE) * PIECE

    def place(self, layer: int, row: int, k: Tensor, v: Tensor) -> None:
        """Put the keys and values (1, G, S, d) of a row's first positions in their place."""
        kept = self._kept[layer]
        if kept is None:
            shape = (len(self.lengths), k.shape[1], self.capacity, k.shape[3])
            # Zeros, since nothing times what happened to be in the memory need not be nothing.
            kept = self._kept[layer] = k.new_zeros(shape), v.new_zeros(shape)
        for held, new in zip(kept, (k, v), strict=True):
            held[row, :, self.columns - k.shape[2] : self.columns] = new[0]

    def advance(self) -> None:
        """Make room for one more position of each row, which `append` then fills."""
        self.columns += 1
        self.lengths = [length + 1 for length in self.lengths]

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Fill the newest column with keys and values (B, G, 1, d); return all in use."""
        kept = self._held(layer)
        if kept[0].shape[2] < self.columns:
            kept = tuple(_widened(held, self.capacity) for held in kept)  # type: ignore[assignment]
            self._kept[layer] = kept
        for held, new in zip(kept, (k, v), strict=True):
            held[:, :, self.columns - 1 : self.columns] = new
        keys, values = (held[:, :, : self.columns] for held in kept)
        return keys, values

    def seen(self, device: torch.device) -> Tensor | None:
        """Which columns belong to a row, boolean (B, 1, 1, columns); None where all do."""
        if min(self.lengths) == self.columns:
            return None
        before = self.columns - torch.tensor(self.lengths, device=device)
        return (torch.arange(self.columns, device=device) >= before[:, None])[:, None, None]

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows; columns that none of them has are given back."""
        self.lengths = [self.lengths[row] for row in rows]
        first, self.columns = self.columns - max(self.lengths), max(self.lengths)
        for layer in range(len(self._kept)):
            kept = [held[list(rows), :, first : first + self.columns] for held in self._held(layer)]
            keys, values = (_widened(held, self.capacity) for held in kept)
            self._kept[layer] = keys, values

    def _held(self, layer: int) -> tuple[Tensor, Tensor]:
        kept = self._kept[layer]
        if kept is None:
            raise ValueError(f"layer {layer} has no first positions; place them")
        return kept


def _widened(held: Tensor, columns: int) -> Tensor:
    """A copy of (B, G, T, d) with zeros behind up to so many columns."""
    wider = held.new_zeros((*held.shape[:2], columns, held.shape[3]))
    wider[:, :, : held.shape[2]] = held
    return wider
