"""The bytes of text of documents, beside their tokens."""

from pathlib import Path

import numpy as np
import pytest

from teleflm.data.indexed import IndexedTokens, IndexedWriter
from teleflm.data.mixture import open_domains
from teleflm.data.store import TokenStore, prepare
from teleflm.data.text_bytes import TextBytesWriter, read_text_bytes, text_bytes_between
from teleflm.errors import DataError
from tests.foreign import foreign


@pytest.fixture
def tokens(tmp_path: Path) -> IndexedTokens:
    with IndexedWriter(tmp_path / "x", "uint16") as writer:
        for size in (4, 1, 10):
            writer.add([7] * size)
    return IndexedTokens(tmp_path / "x")


def test_whole_documents_to_the_byte_and_shares_of_cut_ones(
    tokens: IndexedTokens, tmp_path: Path
) -> None:
    assert read_text_bytes(tmp_path / "x", tokens) is None
    writer = TextBytesWriter(tmp_path / "x")
    for size in (8, 0, 50):
        writer.add(size)
    writer.close()
    sizes = read_text_bytes(tmp_path / "x", tokens)
    assert sizes is not None and sizes.tolist() == [8, 0, 50]
    # The last token of each document is no text.
    for first, last, expected in ((0, 15, 58), (0, 3, 8), (3, 5, 0), (1, 5, 16 / 3), (4, 14, 50)):
        assert text_bytes_between(tokens, sizes, 0, first, last) == pytest.approx(expected)
    # Nor is what begins it.
    sizes[1] = 0
    for first, last, expected in ((1, 15, 58), (1, 2, 4), (0, 1, 0), (4, 6, 0), (6, 10, 25)):
        assert text_bytes_between(tokens, sizes, 1, first, last) == pytest.approx(expected)


def test_a_writer_goes_on_from_what_was_saved(tokens: IndexedTokens, tmp_path: Path) -> None:
    writer = TextBytesWriter(tmp_path / "x")
    writer.add(8)
    writer.save()
    writer.add(9)
    writer.leave()
    assert not (tmp_path / "x.bytes").exists()
    with pytest.raises(DataError, match=r"x\.bytes: what was written of it is not whole"):
        TextBytesWriter(tmp_path / "x", 3)
    writer = TextBytesWriter(tmp_path / "x", 1)
    writer.add(0)
    writer.add(50)
    writer.close()
    sizes = read_text_bytes(tmp_path / "x", tokens)
    assert sizes is not None and sizes.tolist() == [8, 0, 50]
    TextBytesWriter(tmp_path / "y").discard()
    assert not list(tmp_path.glob("y*"))


@pytest.mark.parametrize("content", [b"", b"\0" * 16, b"\0" * 25, b"\xff" * 24])
def test_bytes_of_other_documents(tokens: IndexedTokens, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.bytes").write_bytes(content)
    with pytest.raises(DataError, match=r"x\.bytes: .* where .*x\.bin has 3"):
        read_text_bytes(tmp_path / "x", tokens)


def test_a_store_keeps_them_where_tokens_do_not_say_it(
    store: TokenStore, corpus: Path, tmp_path: Path
) -> None:
    assert not list(store.path.glob("*.bytes"))
    assert all(domain.held_out_bytes is None for domain in open_domains(store.path).domains)
    made = prepare([corpus], foreign(tmp_path)["pieces"], tmp_path / "store", held_out=0.1)
    for domain in open_domains(made.path).domains:
        counts = made.domains[domain.name]
        assert domain.held_out_bytes is not None
        assert domain.held_out_bytes.size == counts.held_out_documents
        assert domain.held_out_bytes.sum() == counts.held_out_bytes
        # The bytes of one document, whose text any tokenizer gives back but for its first space.
        text = made.tokenizer.decode(made.held_out(domain.name).document(0).tolist())
        assert domain.held_out_bytes[0] == len(text.encode())
    pair = open_domains({"x": (str(made.path / "english"), 1.0)}).domains[0]
    same = next(d for d in open_domains(made.path).domains if d.name == "english")
    assert pair.held_out_bytes is not None and same.held_out_bytes is not None
    assert np.array_equal(pair.held_out_bytes, same.held_out_bytes)
