import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from teleflm.data.find import find_corpus
from teleflm.data.records import json_lines, json_values
from teleflm.data.sources import Document, Reading, iterate_documents
from teleflm.errors import DataError

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=9)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)


def blocks(content: bytes, size: int) -> Iterator[bytes]:
    return (content[i : i + size] for i in range(0, len(content), size))


def values(content: bytes, size: int = 7) -> list[Any]:
    return [record for _, record in json_values(Path("x.json"), blocks(content, size))]


@settings(max_examples=100, deadline=None)
@given(st.lists(VALUES, max_size=5), st.integers(1, 60), st.sampled_from([None, 1]), st.booleans())
def test_json_values_in_blocks_of_any_size(
    rows: list[Any], size: int, indent: int | None, ascii: bool
) -> None:
    objects = [{"a": row} for row in rows]
    array = json.dumps(objects, indent=indent, ensure_ascii=ascii).encode()
    assert values(array, size) == objects
    lines = "\n".join(json.dumps(row, indent=indent) for row in objects).encode()
    assert values(lines, size) == objects
    if indent is None:
        found = [record for _, record in json_lines(Path("x"), blocks(lines, size))]
        assert found == objects


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'[{"a": 1},\n{"a": 2}', "line 2: not valid JSON .an array goes on"),
        (b'[{"a": 1} {"a": 2}]', "line 1: not valid JSON .an array goes on"),
        (b'[{"a": 1}] {"a": 2}', "line 1: not valid JSON .more behind the end"),
        (b'[{"a": 1},]', "line 1: not valid JSON"),
        (b'{"a": 1}\n\n{"a": tru}\n{"a": 2}' + b" " * 99, "line 3: not valid JSON"),
        (b'{"a": "never ends', "line 1: not valid JSON .*; repair or remove the record"),
        (b'{"a": "\xe5\xa3"}', "byte 7: not UTF-8 .0xe5."),
        (b'{"a": "\xe5\xa3\xb9"}\n\xff', "byte 13: not UTF-8 .0xff."),
        (b"[" * 100_000, "line 1: not valid JSON"),
    ],
)
def test_bad_json_is_named(content: bytes, message: str) -> None:
    for size in (1, 5, 1000):
        with pytest.raises(DataError, match=rf"^x\.json, {message}"):
            values(content, size)


def test_bad_json_in_a_large_file_is_not_read_to_its_end() -> None:
    read = iter([b'{"a": 1}, oops', *[b" " * 100] * 100])
    with pytest.raises(DataError, match="line 1: not valid JSON"):
        list(json_values(Path("x.json"), read))
    assert len(list(read)) >= 98


def test_a_place_in_an_array_is_a_line_and_a_record() -> None:
    content = b'[{"a": 1},\n\n{"a": 2}, {"a": 3}]'
    wheres = [where for where, _ in json_values(Path("x.json"), blocks(content, 4))]
    assert wheres == [
        "x.json, line 1, record 1",
        "x.json, line 3, record 2",
        "x.json, line 3, record 3",
    ]


@pytest.mark.parametrize("form", ["string", "large_string", "string_view", "binary", "dictionary"])
def test_parquet_strings_in_any_form(tmp_path: Path, form: str) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    texts = pyarrow.array(["eins", "壹", None, "", "eins"])
    if form == "dictionary":
        column = texts.dictionary_encode()
    else:
        column = texts.cast(getattr(pyarrow, form)())
    nested = pyarrow.StructArray.from_arrays([column], ["raw"])
    path = tmp_path / "part.parquet"
    table = pyarrow.table({"text": column, "more": nested, "metadata": ["x"] * 5})
    # This library cannot write views in several groups.
    parquet.write_table(table, path, row_group_size=5 if form == "string_view" else 3)
    expected = [Document(text, "part") for text in ("eins", "壹", "eins")]
    for key in ("text", "more.raw"):
        assert list(iterate_documents(find_corpus([path]), Reading(key))) == expected


def test_parquet_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "part.parquet"
    parquet.write_table(pyarrow.table({"text": [b"fine", b"a\xff"], "id": [1, 2]}), path)
    with pytest.raises(DataError, match=r'row 2: field "text", byte 1: not UTF-8 .0xff.'):
        list(iterate_documents(find_corpus([path])))
    with pytest.raises(DataError, match='row 1: the field "id" is a number, not a string'):
        list(iterate_documents(find_corpus([path]), Reading("id")))


def test_long_rows_behind_short_ones_are_not_held_all_at_once(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    texts = ["short"] * 1000 + [f"{i}" * 1_000_000 for i in range(10, 40)]
    path = tmp_path / "part.parquet"
    parquet.write_table(pyarrow.table({"text": texts}), path)
    before = held = pyarrow.total_allocated_bytes()
    for _ in iterate_documents(find_corpus([path])):
        held = max(held, pyarrow.total_allocated_bytes())
    # The library keeps a page, which may be all of a group's rows, whole; rows come on top of it.
    assert held - before < 2 * sum(map(len, texts))
