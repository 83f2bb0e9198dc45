"""Conversations out of records of three forms."""

import gzip
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from teleflm.data.chat_records import read_conversations
from teleflm.data.sources import Reading
from teleflm.errors import DataError

Write = Callable[..., Path]
ASKED, ANSWERED = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}
SYSTEM = {"role": "system", "content": "Be brief."}


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def lines(*records: Any, name: str = "talk.jsonl") -> Path:
        file = tmp_path / name
        file.write_text("".join(json.dumps(record) + "\n" for record in records))
        return file

    return lines


def openai(*messages: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"messages": list(messages), **more}


def test_three_forms_are_known_by_their_fields(write: Write) -> None:
    sharegpt = [
        {"from": "system", "value": "Be brief."},
        {"from": "human", "value": "Hi"},
        {"from": "gpt", "value": "Ho"},
    ]
    alpaca = {"instruction": "Hi", "output": "Ho", "system": "Be brief."}
    file = write(
        openai(SYSTEM, ASKED, ANSWERED),
        {"conversations": sharegpt},
        {"conversations": sharegpt[1:], "system": "Be brief."},
        {**alpaca, "input": ""},
        {"conversations": [SYSTEM, ASKED, ANSWERED]},
        openai({"role": "developer", "content": "Be brief."}, ASKED, ANSWERED),
        openai({**ASKED, "weight": 0}, ANSWERED, system="Be brief."),
    )
    found = list(read_conversations([file]))
    assert [record.messages for record in found] == [[SYSTEM, ASKED, ANSWERED]] * 7
    assert found[1].where == f"{file}, line 2"
    assert found[1].record == {"conversations": sharegpt}
    assert {record.domain for record in found} == {"talk"}


def test_several_turns_an_input_and_a_history(write: Write) -> None:
    history = [["1?", "1."], ["2?", "2."]]
    asked = {"instruction": "Add.", "input": "1, 2", "output": "3", "history": history}
    tools = openai(
        ASKED,
        {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"}}]},
        {"role": "tool", "content": "17"},
        ANSWERED,
    )
    first, second = read_conversations([write(asked, tools)])
    said = [message["content"] for message in first.messages]
    assert said == ["1?", "1.", "2?", "2.", "Add.\n\n1, 2", "3"]
    roles = [message["role"] for message in second.messages]
    assert roles == ["user", "assistant", "tool", "assistant"]
    assert second.messages[1]["content"] == '{"name": "f"}'


def test_domains_packed_files_and_folders(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = write(openai(ASKED, ANSWERED, metadata={"domain": "maths"}, tools=[{"name": "f"}]))
    with gzip.open(tmp_path / "more.jsonl.gz", "wt") as packed:
        named = {**ASKED, "name": "Ann", "id": None}
        packed.write(json.dumps(openai(named, ANSWERED)))
    (tmp_path / "notes.txt").write_text("not a conversation")
    domains = [record.domain for record in read_conversations([tmp_path])]
    assert domains == ["more", "maths"]
    told = capsys.readouterr().err
    assert "not read: 1 .txt (notes.txt)" in told
    assert 'the field "name" of a message is no text of a message' in told and '"tools"' in told
    assert '"id"' not in told
    one = Reading(domain="all")
    assert {record.domain for record in read_conversations([plain], reading=one)} == {"all"}


def test_rows_of_parquet_have_all_columns_and_some_are_null(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    rows = [openai(ASKED, {**ANSWERED, "weight": 1.0}), {"instruction": "Hi", "output": "Ho"}]
    parquet.write_table(
        pyarrow.Table.from_pylist([{**rows[1], **rows[0], "output": None}]), tmp_path / "a.parquet"
    )
    names = ("messages", "instruction", "output")
    filled = [{name: row.get(name) for name in names} for row in rows]
    parquet.write_table(pyarrow.Table.from_pylist(filled), tmp_path / "b.parquet")
    found = list(read_conversations([tmp_path]))
    assert [record.messages for record in found] == [[ASKED, ANSWERED]] * 3
    assert found[2].where == f"{tmp_path / 'b.parquet'}, row 2"


def test_a_call_that_json_cannot_hold_is_named_by_its_row(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    calls = {**ANSWERED, "tool_calls": [{"at": datetime(2026, 1, 1, tzinfo=UTC)}]}
    rows = [openai(ASKED, calls, {"role": "tool", "content": "17"}, ANSWERED)]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"row 1: message 2 calls a tool with what JSON cannot"):
        list(read_conversations([tmp_path]))


EMPTY = {"role": "assistant", "content": " \n"}


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (openai(ANSWERED, ASKED), "out of order: message 1, by 'assistant', comes first"),
        (openai(ASKED, ASKED, ANSWERED), "message 2, by 'user', comes behind one by 'user'"),
        (openai(ASKED, SYSTEM, ANSWERED), "message 2, by 'system'"),
        (openai(ASKED, ANSWERED, ANSWERED), "message 3, by 'assistant'"),
        (openai(ASKED, ANSWERED, ASKED), "the last message is by 'user'"),
        (openai(ASKED, EMPTY), "message 2 is an empty reply"),
        (openai(ASKED), "no reply of an assistant"),
        (openai(), "no reply of an assistant"),
        (openai(ASKED, {"role": "assistant", "content": [{"type": "image"}]}), "is a list, not"),
        (openai(ASKED, {"role": "assistant", "content": None}), "is null, not a text"),
        (openai({"role": "user", "content": 3}, ANSWERED), "message 1 is a number, not a text"),
        (openai({"role": "user", "content": "\ud800"}, ANSWERED), "lone surrogate"),
        (openai({"role": "narrator", "content": "x"}, ANSWERED), "message 1 is by 'narrator'"),
        (openai({"role": "user", "text": "x"}, ANSWERED), 'message 1 is "role", "text", and not'),
        (openai(ASKED, {**ANSWERED, "weight": 0}), "message 2 has the weight 0, and every reply"),
        (openai(ASKED, {**ANSWERED, "weight": 0.5}), "message 2 has the weight 0.5"),
        (openai(ASKED, ANSWERED, conversations=[]), '"messages" and "conversations" at once'),
        ({"messages": "Hi"}, "no list of turns"),
        ({"text": "Hi"}, 'fields of this record, which has "text"'),
        ({**openai(ASKED, ANSWERED), "instruction": "", "output": ""}, "openai and alpaca at once"),
        ({"instruction": "a", "output": "b", "history": ["a"]}, "history is a list of pairs"),
        ({"instruction": "a", "output": "b", "history": 3}, "history is a list of pairs"),
        ({"instruction": 1, "input": "b", "output": "c"}, "of instruction is a number"),
        ([ASKED, ANSWERED], "not a list"),
    ],
)
def test_bad_input_is_named_by_its_line(write: Write, record: Any, said: str) -> None:
    file = write(openai(ASKED, ANSWERED), record)
    with pytest.raises(DataError, match=f"{file}, line 2: ") as caught:
        list(read_conversations([file]))
    assert said in str(caught.value)


def test_a_format_that_is_said_holds_for_all(write: Write, tmp_path: Path) -> None:
    file = write(openai(ASKED, ANSWERED), {"instruction": "Hi", "output": "Ho"})
    with pytest.raises(DataError, match=r'line 2: no list of turns .* which has "instruction"'):
        list(read_conversations([file], "openai"))
    with pytest.raises(DataError, match='line 1: no field "instruction"'):
        list(read_conversations([file], "alpaca"))
    both = write({**openai(ASKED, ANSWERED), "instruction": "", "output": ""}, name="both.jsonl")
    assert [record.messages for record in read_conversations([both], "openai")] == [
        [ASKED, ANSWERED]
    ]
    with pytest.raises(DataError, match="--format xml: choose one of openai, sharegpt, alpaca"):
        list(read_conversations([file], "xml"))
    empty = write(name="empty.jsonl")
    with pytest.raises(DataError, match=r"empty\.jsonl: no conversation in it"):
        list(read_conversations([empty]))
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(DataError, match="not a kind of corpus file"):
        list(read_conversations([tmp_path / "a.txt"]))
