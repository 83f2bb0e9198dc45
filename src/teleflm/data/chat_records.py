"""Conversations out of records: OpenAI's messages, ShareGPT's turns and Alpaca's fields."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from teleflm.data.fields import check_characters, domain_of, field_names, kind_of
from teleflm.data.find import find_corpus
from teleflm.data.records import records_of
from teleflm.data.sources import Reading, note
from teleflm.data.unpack import Progress
from teleflm.errors import DataError

Message = dict[str, str]
"""With `role`, one of `ROLES`, and `content`."""

ROLES = ("system", "user", "assistant", "tool")
CHAT_BODIES = (".jsonl", ".json")
"""Files that hold records, packed or not; Parquet does too."""

_MOST_FIELDS = 20
# Who speaks, as it is written in sets of either kind.
_SPEAKERS = {
    **{role: role for role in ROLES},
    "developer": "system",
    "human": "user",
    "gpt": "assistant",
    "bot": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "function": "tool",
    "observation": "tool",
    "function_response": "tool",
}
_LISTS = ("messages", "conversations")
# What each role may follow; None is the beginning.
_BEFORE: dict[str, tuple[str | None, ...]] = {
    "system": (None,),
    "user": (None, "system", "assistant"),
    "assistant": ("user", "tool"),
    "tool": ("assistant", "tool"),
}


class ChatRecord(NamedTuple):
    """A conversation.

    Attributes:
        messages: in order: perhaps a system text, then a user's and an assistant's in turn, perhaps
            with tools' answers between two of the latter; an assistant's is the last.
        domain: that it is counted, weighted and evaluated under.
        where: it stands, as an error names it.
        record: as it was read.
    """

    messages: list[Message]
    domain: str
    where: str
    record: dict[str, Any]


def read_conversations(
    paths: Iterable[Path],
    format: str | None = None,
    *,
    reading: Reading | None = None,
    progress: Progress | None = None,
) -> Iterator[ChatRecord]:
    """The conversations in JSON and Parquet files, in a fixed order.

    What is not read is told on standard error: other files in a folder before the first
    conversation, fields of messages that are no text of theirs after the last.

    Args:
        paths: files, or folders of them.
        format: one of `FORMATS`; without one each record shows it by its fields.
        reading: what says a conversation's domain; by default as for text.
        progress: takes the bytes read.

    Raises:
        DataError: with the file and the line or row: what `records_of` raises, a record of no known
            form, roles out of order, an empty reply, a conversation without a reply, content that
            is no text; and for an unknown `format` and files without any conversation.
    """
    if format is not None and format not in FORMATS:
        raise DataError(f"--format {format}: choose one of {', '.join(FORMATS)}")
    asked, corpus = reading or Reading(), find_corpus(paths, CHAT_BODIES)
    for line in corpus.left_out:
        note(line)
    unread, count = Counter[str](), 0
    for file in corpus.files:
        domain, records_say = asked.file_domain(file), asked.asks_records(file)
        for where, record in records_of(file, None, progress or (lambda _: None), whole=True):
            if not isinstance(record, dict):
                raise DataError(
                    f"{where}: a record is an object with fields, not {kind_of(record)}; write it "
                    'as {"messages": [{"role": "user", "content": "…"}, …]}, or remove it'
                )
            messages = _messages(record, format or _recognised(record, where), where, unread)
            own = domain_of(record, where) if records_say else None
            yield ChatRecord(messages, own or domain, where, record)
            count += 1
    if not count:
        raise DataError(f"{corpus.files[0].path}: no conversation in it, nor in any other file")
    for name, times in sorted(unread.items()):
        note(f"the field {name} is no text of a message, and was left out ({times:,} ×)")


def _messages(
    record: dict[str, Any], format: str, where: str, unread: Counter[str]
) -> list[Message]:
    messages = [
        {"role": role, "content": _text(content, where, f"message {number}")}
        for number, (role, content) in enumerate(FORMATS[format](record, where, unread), start=1)
    ]
    _check_order(messages, where)
    return messages


def _recognised(record: dict[str, Any], where: str) -> str:
    """The format that the fields of a record show."""
    shown = []
    listed = next((record[name] for name in _LISTS if record.get(name) is not None), None)
    if listed is not None:
        first = listed[0] if isinstance(listed, list) and listed else {}
        shown.append("sharegpt" if isinstance(first, dict) and "from" in first else "openai")
    if all(record.get(name) is not None for name in ("instruction", "output")):
        shown.append("alpaca")
    if len(shown) == 1:
        return shown[0]
    if shown:
        raise DataError(f"{where}: {' and '.join(shown)} at once; say which with --format")
    raise DataError(
        f"{where}: no conversation known by the fields of this record, {_there(record)}; it needs "
        '"messages" of "role" and "content" (openai), "conversations" of "from" and "value" '
        '(sharegpt), or "instruction" and "output" (alpaca)'
    )


_Said = Iterator[tuple[str, Any]]


def _openai(record: dict[str, Any], where: str, unread: Counter[str]) -> _Said:
    yield from _system(record)
    yield from _turns(record, where, ("role", "content"), unread)


def _sharegpt(record: dict[str, Any], where: str, unread: Counter[str]) -> _Said:
    yield from _system(record)
    yield from _turns(record, where, ("from", "value"), unread)


def _system(record: dict[str, Any]) -> _Said:
    """What stands beside the turns in some sets."""
    if record.get("system"):
        yield "system", record["system"]


def _turns(
    record: dict[str, Any], where: str, keys: tuple[str, str], unread: Counter[str]
) -> _Said:
    listed = [record[name] for name in _LISTS if record.get(name) is not None]
    if len(listed) > 1:
        raise DataError(f'{where}: "messages" and "conversations" at once; take one of them out')
    turns = listed[0] if listed else None
    if not isinstance(turns, list):
        raise DataError(
            f'{where}: no list of turns in a field "messages" or "conversations", '
            f"{_there(record)}; rename it, or say another --format"
        )
    if record.get("tools"):
        unread['"tools" of a record'] += 1
    for number, turn in enumerate(turns, start=1):
        if not isinstance(turn, dict) or any(key not in turn for key in keys):
            has = ", ".join(f'"{key}"' for key in turn) if isinstance(turn, dict) else kind_of(turn)
            raise DataError(
                f"{where}: message {number} is {has or 'empty'}, and not an object with "
                f'"{keys[0]}" and "{keys[1]}"'
            )
        role = _SPEAKERS.get(turn[keys[0]]) if isinstance(turn[keys[0]], str) else None
        if role is None:
            raise DataError(
                f"{where}: message {number} is by {turn[keys[0]]!r}; known are "
                f"{', '.join(_SPEAKERS)}"
            )
        if role == "assistant" and turn.get("weight") not in (None, 1):
            raise DataError(
                f"{where}: message {number} has the weight {turn['weight']!r}, and every reply is "
                "learnt alike; end the conversation before it, or take the weight out"
            )
        content, calls = turn[keys[1]], turn.get("tool_calls")
        if calls:
            content = _with_calls(content, calls, f"{where}: message {number}")
        others = {key for key, value in turn.items() if value is not None}
        unread.update(f'"{key}" of a message' for key in others - {*keys, "tool_calls", "weight"})
        yield role, content


def _with_calls(content: Any, calls: Any, where: str) -> Any:
    """What an assistant says, and below it each call of a tool as a line of JSON."""
    if content is not None and not isinstance(content, str):
        return content  # it is refused as it stands
    said = calls if isinstance(calls, list) else [calls]
    try:
        lines = [
            json.dumps(
                call.get("function", call) if isinstance(call, dict) else call, ensure_ascii=False
            )
            for call in said
        ]
    except TypeError as error:
        raise DataError(
            f"{where} calls a tool with what JSON cannot hold ({error}); write it as text"
        ) from error
    return "\n".join([content, *lines] if content else lines)


def _alpaca(record: dict[str, Any], where: str, unread: Counter[str]) -> _Said:
    """`instruction`, below it `input` where there is one, and `output`; before them perhaps a
    `system` text and a `history` of pairs."""
    missing = next((key for key in ("instruction", "output") if key not in record), None)
    if missing:
        raise DataError(
            f'{where}: no field "{missing}", {_there(record)}; rename it, or say another --format'
        )
    yield from _system(record)
    history = record.get("history") or []
    for pair in history if isinstance(history, list) else [history]:
        if not isinstance(pair, list) or len(pair) != 2:
            raise DataError(f"{where}: history is a list of pairs of a question and its answer")
        yield from zip(("user", "assistant"), pair, strict=True)
    asked, more = record["instruction"], record.get("input")
    if more is not None and more != "":
        _text(asked, where, "instruction")
        asked = f"{asked}\n\n{_text(more, where, 'input')}"
    yield "user", asked
    yield "assistant", record["output"]


FORMATS: dict[str, Callable[[dict[str, Any], str, Counter[str]], _Said]] = {
    "openai": _openai,
    "sharegpt": _sharegpt,
    "alpaca": _alpaca,
}


def _there(record: dict[str, Any]) -> str:
    names = ", ".join(f'"{name}"' for name in field_names(record)[:_MOST_FIELDS])
    return f"which has {names}" if names else "which has none"


def _text(content: Any, where: str, what: str) -> str:
    if not isinstance(content, str):
        raise DataError(
            f"{where}: the content of {what} is {kind_of(content)}, not a text; write it as one, "
            "or remove the record"
        )
    check_characters(content, where)
    return content


def _check_order(messages: list[Message], where: str) -> None:
    """Raises DataError for roles out of order, and for replies that are missing or empty."""
    if not any(message["role"] == "assistant" for message in messages):
        raise DataError(
            f"{where}: no reply of an assistant, so nothing to learn; remove the record"
        )
    before: str | None = None
    for number, message in enumerate(messages, start=1):
        role = message["role"]
        if before not in _BEFORE[role]:
            behind = "comes first" if before is None else f"comes behind one by {before!r}"
            raise DataError(
                f"{where}: roles out of order: message {number}, by {role!r}, {behind}; after "
                "perhaps a system text user and assistant take turns"
            )
        if role == "assistant" and not message["content"].strip():
            raise DataError(f"{where}: message {number} is an empty reply; remove the record")
        before = role
    if before != "assistant":
        raise DataError(
            f"{where}: roles out of order: the last message is by {before!r}, and nobody answers "
            "it; remove it"
        )
