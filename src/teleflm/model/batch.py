"""What goes through a network at once: tokens, their targets, and where their texts begin."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

IGNORED = -1  # a target that counts for nothing


class Batch(NamedTuple):
    """Rows of tokens.

    Attributes:
        tokens: ids (B, S).
        targets: what each is to predict, (B, S), `IGNORED` where that counts for nothing.
        starts: the place in its row at which the text of each token begins, (B, S): positions are
            counted from there, and a token sees those of its own text only. None where each row is
            one text.
    """

    tokens: Tensor
    targets: Tensor
    starts: Tensor | None = None

    @classmethod
    def of(cls, arrays: Sequence[Any]) -> "Batch":
        """The batch of NumPy arrays in this order; one that is None stays so."""
        return cls(*(None if each is None else torch.from_numpy(each) for each in arrays))

    @classmethod
    def next_tokens(cls, rows: Tensor, starts: Tensor | None = None) -> "Batch":
        """Token rows (B, S + 1), each of whose tokens is to predict the next one; `IGNORED` ones
        fill rows up at their ends."""
        return cls(rows[:, :-1].clamp(min=0), rows[:, 1:], starts)

    @property
    def rows(self) -> int:
        """How many."""
        return len(self.tokens)

    @property
    def length(self) -> int:
        """Tokens of each."""
        return self.tokens.shape[1]

    def split(self, rows: int) -> list["Batch"]:
        """Batches of so many rows, the last of what is left."""
        parts = [self.tokens.split(rows), self.targets.split(rows)]
        if self.starts is None:
            return [Batch(*part) for part in zip(*parts, strict=True)]
        return [Batch(*part) for part in zip(*parts, self.starts.split(rows), strict=True)]

    def to(self, device: torch.device) -> "Batch":
        """The same on a device."""
        starts = None if self.starts is None else self.starts.to(device)
        return Batch(self.tokens.to(device), self.targets.to(device), starts)
