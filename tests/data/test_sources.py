import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from teleflm.data import sources, unpack
from teleflm.data.find import find_corpus
from teleflm.data.pieces import cut_pieces
from teleflm.data.sources import Document, Reading, domains_ahead, iterate_documents
from teleflm.errors import DataError

RECORDS = [{"text": "eins", "metadata": {"domain": "de"}}, {"text": "壹"}, {"text": ""}]
LINES = "\n".join(json.dumps(record, ensure_ascii=False) for record in RECORDS).encode()
EXPECTED = [Document("eins", "de"), Document("壹", "part")]


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def broken(content: bytes, place: int) -> bytes:
    """With one byte changed, here of the checksum."""
    changed = bytearray(content)
    changed[place] ^= 1
    return bytes(changed)


def read(*paths: Path) -> list[Document]:
    return list(iterate_documents(find_corpus(paths)))


ARRAY = json.dumps(RECORDS, indent=1).encode()


@pytest.mark.parametrize(
    ("body", "content"),
    [("jsonl", LINES), ("json", LINES), ("json", ARRAY), ("json", b"\xef\xbb\xbf " + ARRAY)],
)
def test_packed_or_not_the_documents_are_the_same(
    tmp_path: Path, body: str, content: bytes
) -> None:
    for name, packed in (
        (f"part.{body}", content),
        (f"PART.0.{body}.gz".lower(), gzip.compress(content)),
        (f"part.1.{body.upper()}.Zst", zstandard.compress(content)),
    ):
        assert read(write(tmp_path / name, packed)) == EXPECTED


@pytest.mark.parametrize(
    ("suffix", "compress"), [("zst", zstandard.compress), ("gz", gzip.compress)]
)
def test_an_archive_of_several_frames_is_read_to_its_end(
    tmp_path: Path, suffix: str, compress: Callable[[bytes], bytes]
) -> None:
    frames = compress(LINES[:30]) + compress(LINES[30:])
    assert read(write(tmp_path / f"part.jsonl.{suffix}", frames)) == EXPECTED


def test_zeros_behind_a_gzip_archive_are_padding(tmp_path: Path) -> None:
    padded = gzip.compress(LINES) + bytes(5000)
    assert read(write(tmp_path / "part.jsonl.gz", padded)) == EXPECTED


@pytest.mark.parametrize("name", ["t.md", "t.txt.gz", "t.md.zst"])
def test_texts_packed_or_not(tmp_path: Path, name: str) -> None:
    content = "one\n壹\n".encode()
    packed = {".gz": gzip.compress(content), ".zst": zstandard.compress(content)}
    assert read(write(tmp_path / name, packed.get(Path(name).suffix, content))) == [
        Document("one\n壹\n", "t")
    ]


@pytest.mark.parametrize(
    ("key", "record"),
    [
        ("content", {"content": "x", "text": 5}),
        ("data.raw.text", {"data": {"raw": {"text": "x"}}}),
        ("a.b", {"a.b": "x", "a": {"b": "y"}}),
        ("a.b.c", {"a": {"b.c": "x"}}),
    ],
)
def test_a_text_key_names_a_field_and_a_field_of_a_field(
    tmp_path: Path, key: str, record: dict[str, Any]
) -> None:
    path = write(tmp_path / "part.jsonl", json.dumps(record).encode())
    assert list(iterate_documents(find_corpus([path]), Reading(key))) == [Document("x", "part")]
    with pytest.raises(DataError, match='no field "nowhere"; the fields are "'):
        list(iterate_documents(find_corpus([path]), Reading("nowhere")))


def test_null_texts_are_counted_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"d": {"t": "a"}}, {"d": {"t": None}}, {"d": None}, {"d": {"t": "b"}}]
    content = "\n".join(map(json.dumps, rows)).encode()
    for name in ("one.jsonl", "two.jsonl"):
        write(tmp_path / name, content)
    documents = iterate_documents(find_corpus([tmp_path]), Reading("d.t"))
    texts = [document.text for document in documents]
    assert texts == ["a", "b"] * 2
    said = capsys.readouterr().err
    assert '4 records whose field "d.t" is null were left out, in 2 files' in said
    assert "one.jsonl is the first" in said


def test_an_empty_file_beside_others_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "a.txt", b"")
    write(tmp_path / "b.txt", b"text")
    assert read(tmp_path) == [Document("text", "b")]
    assert "1 files have no text" in capsys.readouterr().err
    write(tmp_path / "b.txt", b"")
    with pytest.raises(DataError, match=r"a\.txt: no text in this file"):
        read(tmp_path)


def test_what_is_not_read_is_told_before_the_first_document(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.txt", "b.pdf", "c.pdf"):
        write(tmp_path / name, b"text")
    documents = iterate_documents(find_corpus([tmp_path]))
    next(documents)
    assert "not read: 2 .pdf (b.pdf, c.pdf)" in capsys.readouterr().err


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pyarrow.table(
        {
            "text": ["eins", "壹", ""],
            "metadata": [{"domain": "de"}, {"domain": None}, None],
            "other": [1, 2, 3],
        }
    )
    path = tmp_path / "part.parquet"
    parquet.write_table(table, path, row_group_size=1)
    assert read(path) == EXPECTED
    seen: list[int] = []
    assert len(list(iterate_documents(find_corpus([path]), progress=seen.append))) == 2
    assert sum(seen) == path.stat().st_size
    parquet.write_table(table.drop_columns("text"), path)
    columns = 'the fields are "metadata.domain", "other": name the'
    with pytest.raises(DataError, match=f'part.parquet: no field "text"; {columns}'):
        read(path)
    whole = path.read_bytes()
    for damaged in (whole[:-20], whole[:10], whole[:8] + bytes(60) + whole[68:]):
        write(path, damaged)
        with pytest.raises(DataError, match=r"part\.parquet"):
            read(path)


def test_an_explicit_domain_wins(tmp_path: Path) -> None:
    path = write(tmp_path / "part.jsonl", LINES)
    documents = iterate_documents(find_corpus([path]), Reading(domain="mine"))
    assert {document.domain for document in documents} == {"mine"}


def test_folders_are_searched_in_sorted_order_without_hidden_and_foreign_files(
    tmp_path: Path,
) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / ".hidden").mkdir()
    for name in ("b/2.txt", "a.txt", "c.txt", "readme.rst", ".hidden/x.txt", ".a.txt"):
        write(tmp_path / name, name.encode())
    assert [document.text for document in read(tmp_path)] == ["a.txt", "b/2.txt", "c.txt"]
    assert find_corpus([tmp_path]).bytes == len("a.txtb/2.txtc.txt")


@pytest.mark.parametrize(
    "text",
    ["one line", "two\nlines", "a\n", "\ufeffwith a mark\n", "no line end 壹" * 30, "x\r\ny"],
)
def test_a_txt_file_is_one_document(tmp_path: Path, text: str) -> None:
    path = write(tmp_path / "t.txt", text.encode())
    assert read(path) == [Document(text.removeprefix("\ufeff"), "t")]


@pytest.mark.parametrize("unit", ["壹貳叁\n", "壹貳叁肆", "a" * 50 + "\r\n"])
def test_a_long_txt_file_comes_in_bounded_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unit: str
) -> None:
    monkeypatch.setattr(unpack, "BLOCK_BYTES", 100)
    monkeypatch.setattr(sources, "DOCUMENT_BYTES", 100)
    path = write(tmp_path / "t.txt", (unit * 200).encode())
    texts = [document.text for document in read(path)]
    assert "".join(texts) == unit * 200
    assert len(texts) > 5
    assert max(len(text.encode()) for text in texts) <= 300
    if "\n" in unit:
        assert all(text.endswith("\n") for text in texts)


def test_a_line_longer_than_a_block_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpack, "BLOCK_BYTES", 7)
    path = write(tmp_path / "part.jsonl", LINES + b"\n")
    assert read(path) == EXPECTED


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jsonl", b'{"text": "a"}\n{"text": "b"', "line 2: not valid JSON .*; repair or remove"),
        (
            "x.jsonl",
            b'{"text": "a"}\n\n{"txt": "b", "meta": {"raw": "c", "id": 1}}\n',
            'line 3: no field "text"; the fields are "txt", "meta.raw", "meta.id": name .*-key',
        ),
        ("x.jsonl", b"{}\n", 'line 1: no field "text"; the fields are none'),
        ("x.jsonl", b"[1]\n", "line 1: a record is an object .*, not a list; write it as"),
        ("x.jsonl", b'{"text": 5}\n', 'line 1: the field "text" is a number, not .*; .*-key'),
        ("x.jsonl", b'{"text": {"a": "b"}}\n', 'line 1: the field "text" is an object'),
        ("x.jsonl", b'{"text": null}\n', "no text in this file"),
        ("x.jsonl", b'{"text": "a"}\n{"text": "\xe9"}\n', "line 2, byte 10: not UTF-8 .0xe9."),
        ("x.jsonl", b'{"text": "ab\\ud800"}\n', "line 1: .*lone surrogate .* character 2"),
        (
            "x.jsonl",
            b'{"text": "a", "metadata": {"domain": 3}}',
            "line 1: metadata.domain is a num.*; .*-by",
        ),
        ("x.jsonl", b"[" * 100_000, "line 1: not valid JSON"),
        (
            "x.jsonl",
            b"[\n{}\n]",
            r"line 1: not valid JSON \(.*\); an array .* is a \.json file: ren",
        ),
        ("x.jsonl", b"\n\n", "no text in this file"),
        ("x.txt", b"", "no text in this file"),
        ("x.txt", b"fine\n\xff\xfe", "byte 5: not UTF-8 .0xff."),
        ("x.txt", b"\n" * (1 << 20) + b"a\n" * (1 << 20) + b"\xff", "byte 3145728: not UTF-8"),
        ("x.jsonl.zst", b"not zstd at all", "damaged zstd archive"),
        ("x.jsonl.zst", zstandard.compress(LINES)[:-5], "truncated zstd archive"),
        ("x.jsonl.zst", b"", "no text in this file"),
        ("x.jsonl.gz", b"not gzip at all", "damaged gzip archive"),
        ("x.jsonl.gz", gzip.compress(LINES, mtime=0)[:-5], "truncated gzip archive"),
        ("x.jsonl.gz", gzip.compress(LINES, mtime=0)[:20], "truncated gzip archive"),
        ("x.jsonl.gz", gzip.compress(LINES, mtime=0) + b"rest", "damaged gzip archive"),
        ("x.jsonl.gz", broken(gzip.compress(LINES, mtime=0), -8), "damaged gzip archive"),
        ("x.txt.gz", gzip.compress(b"fine \xff", mtime=0), "byte 5: not UTF-8 .0xff."),
        ("x.csv", b"a,b", "not a kind of corpus file"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = write(tmp_path / name, content)
    with pytest.raises(DataError, match=rf"{name}(: |, ){message}"):
        read(path)


def test_a_missing_path_and_a_folder_without_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: no such file or folder"):
        read(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"no \.txt, .* file in this folder"):
        read(tmp_path)


@settings(max_examples=25, deadline=None)
@given(st.text(alphabet="ab \n壹", max_size=200), st.integers(1, 20))
def test_pieces_join_to_the_text(text: str, limit: int) -> None:
    pieces = list(cut_pieces(text, limit))
    assert "".join(pieces) == text
    assert all(len(piece) <= limit for piece in pieces)
    assert all(pieces) or not text


def test_pieces_are_cut_at_line_ends() -> None:
    assert list(cut_pieces("one two\nthree\nfour five six", 15)) == [
        "one two\nthree\n",
        "four five six",
    ]
    assert list(cut_pieces("one two three", 9)) == ["one two", " three"]


def test_files_are_looked_into_only_where_their_names_are_too_many(tmp_path: Path) -> None:
    for i in range(101):
        write(tmp_path / f"a{i}.jsonl", LINES)
    few = [tmp_path / f"a{i}.jsonl" for i in range(100)]
    write(few[0], b"unread")
    write(tmp_path / "b.txt", b"text")
    assert domains_ahead(find_corpus([*few[:99], tmp_path / "b.txt"]), Reading()) == {"b"}
    write(few[0], LINES)
    assert domains_ahead(find_corpus([tmp_path]), Reading()) == {"b", "de"}
    assert len(domains_ahead(find_corpus(few), Reading(domain_by="file"))) == 100
    assert domains_ahead(find_corpus([tmp_path]), Reading(domain="x")) == {"x"}
    for i in range(101):
        write(tmp_path / f"a{i}.jsonl", b'{"text": "x"}')
    assert len(domains_ahead(find_corpus([tmp_path]), Reading())) == 101


def test_a_reading_that_says_two_things_is_refused() -> None:
    with pytest.raises(DataError, match="choose one of record, file, folder"):
        Reading(domain_by="host")
    with pytest.raises(DataError, match="leave out --domain-by"):
        Reading(domain="x", domain_by="folder")
