"""What may be selected: conversations or texts out of records, in the order of the files."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from teleflm.data.chat_records import CHAT_BODIES, Message, read_conversations
from teleflm.data.fields import domain_of, number_at, text_of
from teleflm.data.find import find_corpus
from teleflm.data.records import records_of
from teleflm.data.sources import Reading, note
from teleflm.data.unpack import Progress
from teleflm.errors import DataError


class Sample(NamedTuple):
    """A conversation or a text.

    Attributes:
        messages: of a conversation; none of a text.
        text: all of it; of a conversation the contents, each on lines of its own.
        domain: that it is counted under.
        where: it stands, as an error names it.
        line: the record as a line of JSON, without the line's end.
        score: how good somebody found it, None where nobody says.
    """

    messages: list[Message]
    text: str
    domain: str
    where: str
    line: bytes
    score: float | None = None


def read_samples(
    paths: Sequence[Path],
    format: str | None = None,
    text_key: str | None = None,
    score_key: str | None = None,
    progress: Progress | None = None,
) -> list[Sample]:
    """All that the files hold.

    Args:
        paths: JSON and Parquet files, or folders of them.
        format: of the conversations, see `read_conversations`.
        text_key: the field of a text, where records are texts and no conversations.
        score_key: the field of the score, a number; the higher, the better.
        progress: takes the bytes read.

    Raises:
        DataError: with the file and the line, what `read_conversations` raises, a text or a
            conversation without a word, a score that is missing or not a finite number, and a
            record that JSON cannot hold.
    """
    if text_key is not None and format is not None:
        raise DataError("--text-key is for texts and --format for conversations; leave one out")
    found = _texts(paths, text_key, progress) if text_key else _chats(paths, format, progress)
    samples = []
    for messages, text, domain, where, record in found:
        if not text.strip():
            raise DataError(f"{where}: no text in it; remove the record")
        score = None if score_key is None else number_at(record, score_key, where, "score")
        samples.append(Sample(messages, text, domain, where, _line(record, where), score))
    return samples


_Found = Iterator[tuple[list[Message], str, str, str, dict[str, Any]]]


def _chats(paths: Sequence[Path], format: str | None, progress: Progress | None) -> _Found:
    for chat in read_conversations(paths, format, progress=progress):
        text = "\n".join(message["content"] for message in chat.messages)
        yield chat.messages, text, chat.domain, chat.where, chat.record


def _texts(paths: Sequence[Path], key: str, progress: Progress | None) -> _Found:
    reading, corpus = Reading(key), find_corpus(paths, CHAT_BODIES)
    for line in corpus.left_out:
        note(line)
    for file in corpus.files:
        for where, record in records_of(file, key, progress or (lambda _: None), whole=True):
            text = text_of(record, key, where) or ""
            own = domain_of(record, where)
            yield [], text, own or reading.file_domain(file), where, record


def _line(record: dict[str, Any], where: str) -> bytes:
    try:
        return json.dumps(record, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # half a pair in some other field: only an escape can spell it
        return json.dumps(record).encode()
    except TypeError as error:
        raise DataError(
            f"{where}: a record that JSON cannot hold ({error}); convert that column to text or "
            "numbers, or leave it out"
        ) from error
