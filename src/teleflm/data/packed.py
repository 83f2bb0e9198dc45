"""Conversations packed into rows, whole and side by side: none sees another."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from teleflm.data.indexed import IndexedTokens
from teleflm.data.windows import IGNORED, IntArray, Row
from teleflm.errors import DataError


class Packed:
    """Rows of whole conversations, in the same company in every epoch.

    A conversation of n tokens takes n − 1 positions of a row: its last token is predicted and
    predicts nothing. One that takes more than a row is cut behind the last reply that ends within
    it, and where not even the first does, it is left out.

    Args:
        conversations: their tokens, a document each.
        counted: 1 for each token of theirs that is a target, 0 for others.
        sequence_length: S, the positions of a row.
        most: the first conversations that have so many positions together are enough, one at
            least; all unless given.

    Attributes:
        count: rows.
        conversations: how many are in them.
        cut, left_out: how many of these, and of all, were.

    Raises:
        DataError: the two files do not belong together.
    """

    def __init__(
        self,
        conversations: IndexedTokens,
        counted: IndexedTokens,
        sequence_length: int,
        most: int | None = None,
    ) -> None:
        if not np.array_equal(conversations.lengths, counted.lengths):
            raise DataError(
                f"{counted.path}: says of other tokens than those of {conversations.path} whether "
                "they count; prepare the store again"
            )
        self._source, self._counted = conversations, counted
        self._length = sequence_length
        self._tokens = conversations.lengths.copy()
        long = np.flatnonzero(self._tokens > sequence_length + 1)
        for index in long:
            self._tokens[index] = end_within(counted.document(int(index)), sequence_length + 1)
        fitting = np.flatnonzero(self._tokens)
        self.left_out = self._tokens.size - fitting.size
        self.cut = long.size - self.left_out
        if most is not None:
            # Before they are packed, the longest first: those are no sample of all.
            ends = np.cumsum(self._tokens[fitting] - 1)
            fitting = fitting[: max(1, int(np.searchsorted(ends, most, "right")))]
        self.conversations = fitting.size
        rows = best_fit(self._tokens[fitting] - 1, sequence_length)
        self._rows = [fitting[row] for row in rows]
        self.count = len(self._rows)

    def row(self, window: int) -> Row:
        """The conversations of a row one after the other; what is left of it counts for nothing."""
        length = self._length
        tokens, targets = np.zeros(length, np.int64), np.full(length, IGNORED, np.int64)
        starts = np.empty(length, np.int64)
        at = 0
        for index in self._rows[window]:
            end = at + int(self._tokens[index]) - 1
            ids = self._source.document(index)[: end - at + 1].astype(np.int64)
            counted = self._counted.document(index)[1 : end - at + 1]
            tokens[at:end] = ids[:-1]
            targets[at:end] = np.where(counted, ids[1:], IGNORED)
            starts[at:end] = at
            at = end
        starts[at:] = at
        return Row(tokens, targets, starts)


def end_within(counted: npt.NDArray[np.integer | np.bool_], most: int) -> int:
    """How many tokens of a conversation there are up to the end of the last reply that ends within
    the first `most`; 0 where none does.

    Args:
        counted: whether each counts, (n,), n above `most`.
    """
    read = counted[: most + 1].astype(bool)
    # The last of a run of counted tokens; of one that is cut through there is none.
    ends = np.flatnonzero(read[:-1] & ~read[1:])
    return int(ends[-1]) + 1 if ends.size else 0


def best_fit(lengths: Sequence[int] | IntArray, size: int) -> list[IntArray]:
    """Items packed into rows of `size`: from the longest to the shortest each into the row that it
    fills best, a new one where it fits into none (best-fit decreasing).

    Args:
        lengths: 1 to `size` each.

    Returns:
        The items of each row, by their numbers.
    """
    rows: list[list[int]] = []
    # Rows by the room that they have; a bit for each room that some row has, so that the smallest
    # one that is enough is found at once.
    by_room: dict[int, list[int]] = {}
    rooms = 0
    # Of equal lengths the first comes first.
    for item in np.argsort(-np.asarray(lengths), kind="stable"):
        length = int(lengths[item])
        enough = rooms >> length
        if enough:
            room = length + (enough & -enough).bit_length() - 1
            row = by_room[room].pop()
            if not by_room[room]:
                rooms ^= 1 << room
            rows[row].append(int(item))
        else:
            room, row = size, len(rows)
            rows.append([int(item)])
        left = room - length
        if left:
            by_room.setdefault(left, []).append(row)
            rooms |= 1 << left
    return [np.array(row, np.int64) for row in rows]
