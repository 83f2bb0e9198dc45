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
        """The batch of NumPy arrays in this order, the last one None where there are no starts."""
        tokens, targets, starts = arrays
        return cls(
            torch.from_numpy(tokens),
            torch.from_numpy(targets),
            None if starts is None else torch.from_numpy(starts),
        )

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

    def filled_up(self, rows: int) -> "Batch":
        """The same with so many rows behind it that have no targets."""

        def more(tensor: Tensor, value: int) -> Tensor:
            return torch.cat([tensor, tensor.new_full((rows, self.length), value)])

        starts = None if self.starts is None else more(self.starts, 0)
        return Batch(more(self.tokens, 0), more(self.targets, IGNORED), starts)

    def to(self, device: torch.device) -> "Batch":
        """The same on a device."""
        starts = None if self.starts is None else self.starts.to(device)
        return Batch(self.tokens.to(device), self.targets.to(device), starts)
