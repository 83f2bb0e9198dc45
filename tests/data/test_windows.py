"""Windows: what is read, what counts and where texts begin, against the definition."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from teleflm.data.indexed import IndexedTokens, IndexedWriter
from teleflm.data.windows import IGNORED, EndToEnd, stacked
from teleflm.errors import DataError
from teleflm.model.batch import IGNORED as IGNORED_BY_LOSSES


def documents(prefix: Path, sizes: list[int]) -> IndexedTokens:
    """Documents of these sizes, of tokens 0, 1, … in all."""
    with IndexedWriter(prefix, np.uint16) as writer:
        for end, size in zip(np.cumsum(sizes), sizes, strict=True):
            writer.add(np.arange(end - size, end))
    return IndexedTokens(prefix)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=9).filter(lambda sizes: sum(sizes) > 1),
    st.integers(1, 13),
    st.booleans(),
    st.booleans(),
)
def test_every_window_by_the_definition(
    tmp_path_factory: pytest.TempPathFactory,
    sizes: list[int],
    length: int,
    mask: bool,
    with_tail: bool,
) -> None:
    made = documents(tmp_path_factory.mktemp("windows") / "x", sizes)
    windows = EndToEnd(made, length, mask, with_tail=with_tail)
    total = sum(sizes)
    begins = [end - size for end, size in zip(np.cumsum(sizes), sizes, strict=True)]
    document = np.repeat(np.arange(len(sizes)), sizes)
    assert windows.count == ((total - 2) // length + 1 if with_tail else (total - 1) // length)
    for window in range(windows.count):
        row = windows.row(window)
        assert (row.starts is not None) == mask
        for place in range(length):
            here = window * length + place
            if here >= total - 1:
                assert row.targets[place] == IGNORED
                assert row.tokens[place] == (here if here < total else 0)
                continue
            assert row.tokens[place] == here
            is_last = document[here + 1] != document[here]
            assert row.targets[place] == (IGNORED if mask and is_last else here + 1)
            if row.starts is not None:
                assert row.starts[place] == max(begins[document[here]] - window * length, 0)


def test_rows_are_stacked(tmp_path: Path) -> None:
    made = documents(tmp_path / "x", [5, 6])
    for mask in (False, True):
        windows = EndToEnd(made, 4, mask)
        rows = stacked([windows.row(1), windows.row(0)])
        assert rows.tokens.tolist() == [[4, 5, 6, 7], [0, 1, 2, 3]]
        assert rows.targets.dtype == np.int64
        assert (rows.starts is None) is not mask
        if rows.starts is not None:
            assert rows.starts.tolist() == [[0, 1, 1, 1], [0, 0, 0, 0]]
            assert rows.targets.tolist() == [[-1, 6, 7, 8], [1, 2, 3, 4]]


def test_what_is_no_token_is_refused_and_not_ignored(tmp_path: Path) -> None:
    # As a target it would pass for one that does not count.
    with IndexedWriter(tmp_path / "x", np.int32) as writer:
        writer.add(np.array([3, 4, 5, 6, -1, 8]))
    with pytest.raises(DataError, match=r"x\.bin: -1 at position 4 is no token"):
        EndToEnd(IndexedTokens(tmp_path / "x"), 4).row(0)


def test_one_mark_for_both() -> None:
    assert IGNORED == IGNORED_BY_LOSSES
