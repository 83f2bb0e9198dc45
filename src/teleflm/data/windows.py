"""Windows of tokens: what a model reads as one row, and which of its predictions count."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from teleflm.data.indexed import IndexedTokens
from teleflm.errors import DataError

IntArray = npt.NDArray[np.int64]

IGNORED = -1  # a target that counts for nothing; what the model's losses take it for, too


class Row(NamedTuple):
    """What the model reads at once.

    Attributes:
        tokens: ids (S,).
        targets: what each is to predict, (S,), `IGNORED` where that counts for nothing.
        starts: the place in the row at which the text of each token begins, (S,). Positions are
            counted from there, and a token sees those of its own text only. None where the whole
            row is one text.
    """

    tokens: IntArray
    targets: IntArray
    starts: IntArray | None


class Rows(NamedTuple):
    """Several of them, (B, S) each; see `Row`."""

    tokens: IntArray
    targets: IntArray
    starts: IntArray | None


class Windows(Protocol):
    """The rows of one epoch, each a pure function of its number."""

    @property
    def count(self) -> int:
        """How many; 0 or more."""

    def row(self, window: int) -> Row:
        """Window `window` of `count`. Raises DataError for what cannot be a token."""


def stacked(rows: Sequence[Row]) -> Rows:
    """Rows of one length, at least one of them, one below the other."""
    tokens, targets, starts = zip(*rows, strict=True)
    whole = None if starts[0] is None else np.stack(starts)
    return Rows(np.stack(tokens), np.stack(targets), whole)


class EndToEnd:
    """Documents laid end to end and cut every `sequence_length` tokens.

    Each token but the very first is the target of the one before it exactly once, but for a tail
    that is shorter than a window.

    Args:
        tokens: the documents.
        sequence_length: S.
        document_mask: whether tokens see their own document only. Then the last of a document has
            no target, as that is of another one.
        with_tail: whether there is a window of the tail too, filled up behind it with tokens that
            have no target.
    """

    def __init__(
        self,
        tokens: IndexedTokens,
        sequence_length: int,
        document_mask: bool = False,
        *,
        with_tail: bool = False,
    ) -> None:
        self._source, self._length = tokens, sequence_length
        self._masks = document_mask
        targets = tokens.tokens.size - 1
        self.count = -(-targets // sequence_length) if with_tail else targets // sequence_length

    def row(self, window: int) -> Row:
        length, first = self._length, window * self._length
        read = self._source.tokens[first : first + length + 1].astype(np.int64)
        if read.min() < 0:
            place = int(np.argmax(read < 0))
            raise DataError(
                f"{self._source.path}: {read[place]} at position {first + place} is no token; make "
                "the file again from its text"
            )
        tokens, targets = np.zeros(length, np.int64), np.full(length, IGNORED)
        tokens[: min(read.size, length)] = read[:length]
        targets[: read.size - 1] = read[1:]
        if not self._masks:
            return Row(tokens, targets, None)
        offsets = self._source.offsets
        inside = slice(*np.searchsorted(offsets, [first, first + read.size], "left"))
        begins = np.unique(offsets[inside]) - first
        targets[begins[begins > 0] - 1] = IGNORED
        starts = np.zeros(length, np.int64)
        starts[begins[begins < length]] = begins[begins < length]
        return Row(tokens, targets, np.maximum.accumulate(starts))
