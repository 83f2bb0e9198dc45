"""What a run reads, known by its content: of conversations also what of them is to be learnt."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from teleflm.data.identity import identify
from teleflm.data.indexed import IndexedTokens, IndexedWriter
from teleflm.data.mixture import Domain


def written(file: Path, rows: Sequence[list[int]], dtype: type) -> IndexedTokens:
    with IndexedWriter(file, dtype) as writer:
        for row in rows:
            writer.add(row)
    return IndexedTokens(file)


def digest(folder: Path, rows: Sequence[tuple[list[int], list[int]]]) -> str:
    """Of conversations as their tokens and what of them counts."""
    folder.mkdir()
    tokens = written(folder / "x", [row[0] for row in rows], np.uint16)
    counted = written(folder / "y", [row[1] for row in rows], np.uint8)
    return identify([Domain("x", 1.0, tokens, None, counted=counted)])["x"].digest


def test_what_counts_and_where_a_conversation_begins(tmp_path: Path) -> None:
    rows = [([5, 6, 7], [0, 0, 1]), ([8, 9], [0, 1])]
    found = digest(tmp_path / "a", rows)
    assert digest(tmp_path / "b", rows) == found
    assert digest(tmp_path / "c", [([5, 6, 7], [0, 1, 1]), rows[1]]) != found
    assert digest(tmp_path / "d", [([5, 6], [0, 0]), ([7, 8, 9], [1, 0, 1])]) != found


def test_where_a_text_begins_matters_where_texts_do_not_see_each_other(tmp_path: Path) -> None:
    one = written(tmp_path / "one", [[5, 6, 7], [8, 9]], np.uint16)
    other = written(tmp_path / "other", [[5, 6], [7, 8, 9]], np.uint16)
    for document_mask in (False, True):
        digests = {
            identify([Domain("x", 1.0, tokens, None)], document_mask)["x"].digest
            for tokens in (one, other)
        }
        assert len(digests) == 1 + document_mask
