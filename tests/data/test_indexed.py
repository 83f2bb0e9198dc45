import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from teleflm.data.indexed import IndexedTokens, IndexedWriter, token_dtype
from teleflm.errors import DataError

DOCUMENTS = [[1, 2, 3], [4], [], [65_499, 0]]


def write(prefix: Path, documents: list[list[int]], dtype: npt.DTypeLike = np.uint16) -> Path:
    with IndexedWriter(prefix, dtype) as writer:
        for document in documents:
            writer.add(document)
    return prefix


def test_the_bytes_are_megatrons(tmp_path: Path) -> None:
    """Spelled out byte by byte from the published layout, not through our own reader."""
    prefix = write(tmp_path / "a.b", DOCUMENTS)
    assert (tmp_path / "a.b.bin").read_bytes() == struct.pack("<6H", 1, 2, 3, 4, 65_499, 0)
    assert (tmp_path / "a.b.idx").read_bytes() == b"".join(
        [
            b"MMIDIDX\x00\x00",
            struct.pack("<Q", 1),
            struct.pack("<B", 8),
            struct.pack("<QQ", 4, 5),
            struct.pack("<4i", 3, 1, 0, 2),
            struct.pack("<4q", 0, 6, 8, 8),
            struct.pack("<5q", 0, 1, 2, 3, 4),
        ]
    )
    wide = write(tmp_path / "wide", [[70_000]], np.int32)
    assert wide.with_suffix(".idx").read_bytes()[17] == 4
    assert IndexedTokens(wide).document(0).tolist() == [70_000]
    assert IndexedTokens(prefix).path.name == "a.b.bin"


@settings(max_examples=20, deadline=None)
@given(st.lists(st.lists(st.integers(0, 60_000), max_size=5), min_size=1, max_size=8))
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, documents: list[list[int]]
) -> None:
    if not any(documents):
        documents = [*documents, [1]]
    read = IndexedTokens(write(tmp_path_factory.mktemp("indexed") / "x", documents))
    assert len(read) == len(documents)
    assert read.lengths.tolist() == [len(document) for document in documents]
    assert [read.document(i).tolist() for i in range(len(read))] == documents
    assert read.document(-1).tolist() == documents[-1]
    assert read.tokens.tolist() == [token for document in documents for token in document]
    with pytest.raises(IndexError):
        read.document(len(documents))


def test_documents_of_several_sequences_and_mode_bytes(tmp_path: Path) -> None:
    """Megatron's own tools may split a document in sentences, and multimodal data has modes."""
    (tmp_path / "m.bin").write_bytes(np.arange(6, dtype="<i4").tobytes())
    header = b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, 4, 3, 3)
    tables = struct.pack("<3i3q3q", 1, 2, 3, 0, 4, 12, 0, 2, 3)
    (tmp_path / "m.idx").write_bytes(header + tables + b"\x00\x01\x00")
    read = IndexedTokens(tmp_path / "m")
    assert [read.document(i).tolist() for i in range(len(read))] == [[0, 1, 2], [3, 4, 5]]


def test_nothing_has_its_name_before_it_is_whole(tmp_path: Path) -> None:
    writer = IndexedWriter(tmp_path / "x", np.uint16)
    writer.add([1, 2])
    assert not list(tmp_path.glob("x.bin")) + list(tmp_path.glob("x.idx"))
    writer.close()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["x.bin", "x.idx"]
    with pytest.raises(RuntimeError), IndexedWriter(tmp_path / "y", np.uint16) as other:
        other.add([1])
        raise RuntimeError
    assert sorted(file.name for file in tmp_path.iterdir()) == ["x.bin", "x.idx"]


def test_a_token_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    writer = IndexedWriter(tmp_path / "x", np.uint16)
    for token in (70_000, -1):
        with pytest.raises(DataError, match="do not fit uint16"):
            writer.add(np.array([token]))
    writer.discard()


def test_the_type_follows_the_vocabulary() -> None:
    assert token_dtype(65_499) == np.uint16
    assert token_dtype(65_500) == np.int32


@pytest.mark.parametrize("suffix", [".bin", ".idx"])
@pytest.mark.parametrize("cut", [1, 2, 6, 8])
def test_a_truncated_file_is_named(tmp_path: Path, suffix: str, cut: int) -> None:
    prefix = write(tmp_path / "x", [[1, 2, 3], [4, 5]])
    file = prefix.with_suffix(suffix)
    file.write_bytes(file.read_bytes()[:-cut])
    with pytest.raises(DataError, match=rf"x\{suffix}: damaged or cut short"):
        IndexedTokens(prefix)


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [
        (0, b"X", "magic"),
        (9, b"\x02", "version 2"),
        (17, b"\x07", "token type 7"),
        (18, b"\x03", "cut short"),
        (34, b"\x02", "cut short"),
    ],
)
def test_a_damaged_index_is_named(tmp_path: Path, offset: int, value: bytes, message: str) -> None:
    prefix = write(tmp_path / "x", [[1, 2, 3], [4, 5]])
    file = prefix.with_suffix(".idx")
    data = file.read_bytes()
    file.write_bytes(data[:offset] + value + data[offset + 1 :])
    with pytest.raises(DataError, match=rf"x\.idx: .*{message}"):
        _ = IndexedTokens(prefix).lengths


def test_missing_short_and_empty_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"x\.idx: no such file"):
        IndexedTokens(tmp_path / "x")
    prefix = write(tmp_path / "x", [[1]])
    prefix.with_suffix(".idx").write_bytes(b"MMIDIDX\x00\x00\x01")
    with pytest.raises(DataError, match=r"x\.idx: damaged"):
        IndexedTokens(prefix)
    prefix.with_suffix(".bin").unlink()
    with pytest.raises(DataError, match=r"x\.bin: no such file"):
        IndexedTokens(prefix)
    with pytest.raises(DataError, match=r"e\.bin: no tokens"):
        IndexedTokens(write(tmp_path / "e", [[]]))


def test_a_writer_goes_on_from_what_was_saved(tmp_path: Path) -> None:
    """What was added after the save is gone, also where it was saved again without a trace."""
    writer = IndexedWriter(tmp_path / "x", "uint16")
    writer.add([1, 2])
    writer.extend([3])
    first = writer.save()
    writer.add([4])
    writer.add([5])
    writer.save()
    writer.leave()
    again = IndexedWriter.resume(tmp_path / "x", "uint16", first)
    assert (again.documents, again.open_tokens) == (1, 1)
    again.add([6, 7])
    second = again.save()
    again.leave()
    with IndexedWriter.resume(tmp_path / "x", "uint16", second) as last:
        last.add([8])
    tokens = IndexedTokens(tmp_path / "x")
    assert [tokens.document(i).tolist() for i in range(3)] == [[1, 2], [3, 6, 7], [8]]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.bin", "x.idx"]


def test_a_writer_does_not_go_on_from_files_that_were_cut(tmp_path: Path) -> None:
    writer = IndexedWriter(tmp_path / "x", "uint16")
    writer.add([1, 2])
    saved = writer.save()
    writer.leave()
    for name in ("x.bin.partial", "x.lengths.partial"):
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[:-1])
        with pytest.raises(DataError, match="what was written of it is not whole"):
            IndexedWriter.resume(tmp_path / "x", "uint16", saved)
        (tmp_path / name).write_bytes(whole)


def test_a_digest_is_of_the_tokens_in_any_type(tmp_path: Path) -> None:
    for name, dtype, tokens in (
        ("a", np.uint16, [1, 2, 3]),
        ("b", np.int32, [1, 2, 3]),
        ("c", np.uint16, [1, 2, 4]),
        ("d", np.uint16, [1, 2]),
    ):
        with IndexedWriter(tmp_path / name, dtype) as writer:
            writer.add(tokens)
    a, b, c, d = (IndexedTokens(tmp_path / name).digest() for name in "abcd")
    assert a == b and len({a, c, d}) == 3


def test_a_digest_reads_a_little_of_terabytes(tmp_path: Path) -> None:
    # Holes of a file take no room. Hashed whole, this would take an hour.
    each, sequences = 2**31 - 1, 512
    size = each * sequences
    index = struct.pack("<9sQBQQ", b"MMIDIDX\0\0", 1, 8, sequences, 2)
    lengths = np.full(sequences, each, "<i4")
    pointers = np.arange(sequences, dtype="<i8") * each * 2
    tables = (lengths, pointers, np.array([0, sequences], "<i8"))
    (tmp_path / "x.idx").write_bytes(index + b"".join(table.tobytes() for table in tables))
    digests = set()
    for place in (None, 0, size // 63 * 31, size - 1):
        with (tmp_path / "x.bin").open("wb") as file:
            file.truncate(size * 2)
            if place is not None:
                file.seek(place * 2)
                file.write(b"\x07")
        digests.add(IndexedTokens(tmp_path / "x").digest())
    assert len(digests) == 4
