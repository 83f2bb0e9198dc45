"""Records as they came, and what is wrong with them by file and line."""

import json
from pathlib import Path
from typing import Any

import pytest

from teleflm.errors import DataError
from teleflm.selection.samples import read_samples

CHAT = {
    "messages": [
        {"role": "user", "content": "Wie heißt 船?"},
        {"role": "assistant", "content": "Schiff"},
    ]
}


def lines(folder: Path, *records: Any) -> Path:
    file = folder / "set.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    return file


def test_conversations_of_any_form(tmp_path: Path) -> None:
    alpaca = {"instruction": "Hi", "input": "", "output": "Ho", "metadata": {"domain": "a"}, "n": 1}
    file = lines(tmp_path, {**CHAT, "id": 1.50, "z": None}, alpaca)
    one, other = read_samples([file])
    assert one.text == "Wie heißt 船?\nSchiff" and one.domain == "set"
    assert one.line.decode().startswith('{"messages": [{"role": "user", "content": "Wie heißt 船?"')
    assert json.loads(one.line) == {**CHAT, "id": 1.5, "z": None}
    assert json.loads(other.line) == alpaca
    assert (other.text, other.domain, other.where) == ("Hi\nHo", "a", f"{file}, line 2")
    assert one.score is None


def test_half_a_pair_in_another_field_stays(tmp_path: Path) -> None:
    (sample,) = read_samples([lines(tmp_path, {**CHAT, "note": "\ud83d"})])
    assert json.loads(sample.line)["note"] == "\ud83d"


def test_texts_and_scores(tmp_path: Path) -> None:
    file = lines(tmp_path, {"body": "a b", "meta": {"q": 3}}, {"body": "c", "meta": {"q": -0.5}})
    samples = read_samples([file], text_key="body", score_key="meta.q")
    assert [(s.text, s.messages, s.score) for s in samples] == [("a b", [], 3.0), ("c", [], -0.5)]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "is null, not a finite number"),
        pytest.param(10**400, "is inf, not a finite number", id="huge"),
        (float("nan"), "is nan, not a finite number; repair the record, or leave out --score-key"),
        (float("-inf"), "is -inf, not"),
        ("5", "is a string, not"),
        (True, "is true or false, not"),
    ],
)
def test_a_score_that_is_none(tmp_path: Path, value: Any, message: str) -> None:
    file = lines(tmp_path, {**CHAT, "q": 1}, {**CHAT, "q": value})
    with pytest.raises(
        DataError, match=rf'set\.jsonl, line 2: the score in the field "q" {message}'
    ):
        read_samples([file], score_key="q")


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    cases: list[tuple[Any, dict[str, Any], str]] = [
        (CHAT, {"score_key": "q"}, 'line 1: no field "q"; .* with --score-key'),
        ({"messages": []}, {}, "line 1: no reply"),
        ({"text": "a"}, {}, "line 1: no conversation known"),
        ({"text": " \n"}, {"text_key": "text"}, "line 1: no text in it; remove the record"),
        ({"text": None}, {"text_key": "text"}, "line 1: no text in it"),
        ({"text": "a"}, {"text_key": "text", "format": "openai"}, "leave one out"),
    ]
    for record, options, message in cases:
        with pytest.raises(DataError, match=message):
            read_samples([lines(tmp_path, record)], **options)


def test_a_column_that_json_cannot_hold(tmp_path: Path) -> None:
    from datetime import date

    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pyarrow.table({"text": ["a"], "day": [date(2026, 1, 1)]})
    parquet.write_table(table, tmp_path / "set.parquet")
    with pytest.raises(DataError, match=r"set\.parquet, row 1: a record that JSON cannot hold"):
        read_samples([tmp_path], text_key="text")
