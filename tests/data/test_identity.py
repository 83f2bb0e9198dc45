"""What a run reads, known by its content: of conversations also what of them is to be learnt."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from teleflm.data.identity import identify
from teleflm.data.indexed import IndexedTokens, IndexedWriter
from teleflm.data.mixture import Domain


def digest(folder: Path, rows: Sequence[tuple[list[int], list[int]]]) -> str:
    """Of conversations as their tokens and what of them counts."""
    folder.mkdir()
    for name, column, dtype in (("x", 0, np.uint16), ("y", 1, np.uint8)):
        with IndexedWriter(folder / name, dtype) as writer:
            for row in rows:
                writer.add(row[column])
    tokens, counted = IndexedTokens(folder / "x"), IndexedTokens(folder / "y")
    return identify([Domain("x", 1.0, tokens, None, counted=counted)])["x"].digest


def test_what_counts_and_where_a_conversation_begins(tmp_path: Path) -> None:
    rows = [([5, 6, 7], [0, 0, 1]), ([8, 9], [0, 1])]
    found = digest(tmp_path / "a", rows)
    assert digest(tmp_path / "b", rows) == found
    assert digest(tmp_path / "c", [([5, 6, 7], [0, 1, 1]), rows[1]]) != found
    assert digest(tmp_path / "d", [([5, 6], [0, 0]), ([7, 8, 9], [1, 0, 1])]) != found
