import json
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from teleflm.data import sources
from teleflm.data.pieces import cut_pieces
from teleflm.data.sources import Document, corpus_bytes, iterate_documents
from teleflm.errors import DataError

RECORDS = [{"text": "eins", "metadata": {"domain": "de"}}, {"text": "壹"}, {"text": ""}]
LINES = "\n".join(json.dumps(record, ensure_ascii=False) for record in RECORDS).encode()
EXPECTED = [Document("eins", "de"), Document("壹", "part")]


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def read(*paths: Path) -> list[Document]:
    return list(iterate_documents(paths))


def test_jsonl_and_zst_give_the_same_documents(tmp_path: Path) -> None:
    plain = write(tmp_path / "part.0.jsonl", LINES)
    packed = write(tmp_path / "part.1.jsonl.zst", zstandard.compress(LINES))
    assert read(plain) == read(packed) == EXPECTED


def test_a_zst_file_of_several_frames_is_read_to_its_end(tmp_path: Path) -> None:
    frames = zstandard.compress(LINES[:30]) + zstandard.compress(LINES[30:])
    assert read(write(tmp_path / "part.jsonl.zst", frames)) == EXPECTED


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
    assert len(list(iterate_documents([path], progress=seen.append))) == 2
    assert sum(seen) == path.stat().st_size
    parquet.write_table(table.drop_columns("text"), path)
    with pytest.raises(DataError, match=r"part.parquet: no column \"text\""):
        read(path)
    whole = path.read_bytes()
    for damaged in (whole[:-20], whole[:10], whole[:8] + bytes(60) + whole[68:]):
        write(path, damaged)
        with pytest.raises(DataError, match=r"part\.parquet"):
            read(path)


def test_an_explicit_domain_wins(tmp_path: Path) -> None:
    path = write(tmp_path / "part.jsonl", LINES)
    assert {document.domain for document in iterate_documents([path], "mine")} == {"mine"}


def test_folders_are_searched_in_sorted_order_without_hidden_and_foreign_files(
    tmp_path: Path,
) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / ".hidden").mkdir()
    for name in ("b/2.txt", "a.txt", "c.txt", "readme.md", ".hidden/x.txt", ".a.txt"):
        write(tmp_path / name, name.encode())
    assert [text for text, _ in read(tmp_path)] == ["a.txt", "b/2.txt", "c.txt"]
    assert corpus_bytes([tmp_path]) == len("a.txtb/2.txtc.txt")


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
    monkeypatch.setattr(sources, "BLOCK_BYTES", 100)
    path = write(tmp_path / "t.txt", (unit * 200).encode())
    texts = [text for text, _ in read(path)]
    assert "".join(texts) == unit * 200
    assert len(texts) > 5
    assert max(len(text.encode()) for text in texts) <= 300
    if "\n" in unit:
        assert all(text.endswith("\n") for text in texts)


def test_a_line_longer_than_a_block_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "BLOCK_BYTES", 7)
    path = write(tmp_path / "part.jsonl", LINES + b"\n")
    assert read(path) == EXPECTED


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jsonl", b'{"text": "a"}\n{"text": "b"', "line 2: not valid JSON"),
        ("x.jsonl", b'{"text": "a"}\n\n{"txt": "b"}\n', 'line 3: no string field "text"'),
        ("x.jsonl", b"[1]\n", 'line 1: no string field "text"'),
        ("x.jsonl", b'{"text": 5}\n', 'line 1: no string field "text"'),
        ("x.jsonl", b'{"text": "a"}\n{"text": "\xe9"}\n', "line 2, byte 10: not UTF-8 .0xe9."),
        ("x.jsonl", b'{"text": "ab\\ud800"}\n', "line 1: .*lone surrogate .* character 2"),
        ("x.jsonl", b'{"text": "a", "metadata": {"domain": 3}}', "line 1: metadata.domain"),
        ("x.jsonl", b"[" * 100_000, "line 1: not valid JSON"),
        ("x.jsonl", b"\n\n", "no text in this file"),
        ("x.txt", b"", "no text in this file"),
        ("x.txt", b"fine\n\xff\xfe", "byte 5: not UTF-8 .0xff."),
        ("x.txt", b"\n" * (1 << 20) + b"a\n" * (1 << 20) + b"\xff", "byte 3145728: not UTF-8"),
        ("x.jsonl.zst", b"not zstd at all", "damaged zstd archive"),
        ("x.jsonl.zst", zstandard.compress(LINES)[:-5], "truncated zstd archive"),
        ("x.jsonl.zst", b"", "no text in this file"),
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
