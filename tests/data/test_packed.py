"""Conversations in rows: each whole, once, by itself, with the targets that count."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from teleflm.data.indexed import IndexedTokens, IndexedWriter
from teleflm.data.packed import Packed, best_fit
from teleflm.data.windows import IGNORED
from teleflm.errors import DataError

Conversation = tuple[list[int], list[int]]


def packed(folder: Path, conversations: Sequence[Conversation], length: int) -> Packed:
    """Of conversations as their tokens and what of them counts."""
    for name, column, dtype in (("x", 0, np.uint16), ("x.counted", 1, np.uint8)):
        with IndexedWriter(folder / name, dtype) as writer:
            for conversation in conversations:
                writer.add(conversation[column])
    return Packed(IndexedTokens(folder / "x"), IndexedTokens(folder / "x.counted"), length)


def predicted(found: Packed) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Inputs and targets of each text in all rows, what counts for nothing at their ends aside."""
    texts = []
    for window in range(found.count):
        row = found.row(window)
        assert row.starts is not None
        for start in np.unique(row.starts):
            here = row.starts == start
            assert np.flatnonzero(here)[0] == start, "positions begin where the text does"
            if (row.targets[here] != IGNORED).any():
                texts.append((tuple(row.tokens[here].tolist()), tuple(row.targets[here].tolist())))
    return texts


def test_a_row_has_whole_conversations_and_their_targets(tmp_path: Path) -> None:
    first = ([5, 6, 7, 8], [0, 0, 1, 1])
    second = ([9, 10, 11], [0, 1, 0])
    found = packed(tmp_path, [first, second], 7)
    assert found.count == 1
    row = found.row(0)
    assert row.tokens.tolist() == [5, 6, 7, 9, 10, 0, 0]
    assert row.targets.tolist() == [-1, 7, 8, 10, -1, -1, -1]
    assert row.starts is not None
    assert row.starts.tolist() == [0, 0, 0, 3, 3, 5, 5]


def test_a_long_conversation_is_cut_behind_a_reply(tmp_path: Path) -> None:
    # Two turns: replies [3, 4] and [7, 8, 9], and a newline behind each that counts for nothing.
    turns = ([1, 2, 3, 4, 5, 6, 7, 8, 9, 5], [0, 0, 1, 1, 0, 0, 1, 1, 1, 0])
    for length, end in ((9, 10), (8, 9), (7, 4), (4, 4), (3, 4)):
        found = packed(tmp_path, [turns, ([1, 2], [0, 1])], length)
        texts = [inputs for inputs, _ in predicted(found)]
        assert tuple(turns[0][: end - 1]) in texts
        assert (found.cut, found.left_out) == (int(end < 10), 0)
    found = packed(tmp_path, [turns, ([1, 2], [0, 1])], 2)
    assert (found.count, found.cut, found.left_out) == (1, 0, 1)
    assert predicted(found) == [((1,), (2,))]


def test_of_another_store_is_not_what_counts(tmp_path: Path) -> None:
    assert packed(tmp_path, [([1, 2, 3, 4], [0, 0, 1, 1])], 2).count == 0
    with IndexedWriter(tmp_path / "y.counted", np.uint8) as writer:
        writer.add([0, 1])
    with pytest.raises(DataError, match="other tokens than those"):
        Packed(IndexedTokens(tmp_path / "x"), IndexedTokens(tmp_path / "y.counted"), 8)


@given(st.lists(st.integers(1, 20), min_size=1, max_size=60))
def test_each_is_there_once_and_no_row_is_too_long(lengths: list[int]) -> None:
    rows = best_fit(lengths, 20)
    assert sorted(np.concatenate(rows).tolist()) == list(range(len(lengths)))
    sums = [sum(lengths[item] for item in row) for row in rows]
    assert max(sums) <= 20
    # No two rows could have been one.
    assert all(a + b > 20 for i, a in enumerate(sums) for b in sums[:i])
