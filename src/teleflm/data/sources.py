"""Documents out of text, JSON and Parquet files, packed or not, streamed in bounded memory."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from teleflm.data.domains import MOST_DOMAINS, file_domain
from teleflm.data.find import PARQUET, Corpus, CorpusFile
from teleflm.data.records import Record, json_lines, json_values, missing_key, parquet_records
from teleflm.data.unpack import Progress, decode, unpacked_blocks
from teleflm.errors import DataError

DOCUMENT_BYTES = 1 << 20
DOMAIN_BY = ("record", "file", "folder")


@dataclass(frozen=True)
class Reading:
    """How documents are read out of records.

    `text_key` is the field of the text, with dots for a field of a field. `domain` is the domain of
    all documents. Without it, `domain_by` says where a document's domain comes from: the record's
    `metadata.domain`, else the file's name (see `file_domain`); that name alone; or the folder
    right below the path that was named.
    """

    text_key: str = "text"
    domain: str | None = None
    domain_by: str = "record"

    def __post_init__(self) -> None:
        """Raises DataError for an unknown `domain_by`, and for one beside a `domain`."""
        if self.domain_by not in DOMAIN_BY:
            raise DataError(f"--domain-by {self.domain_by}: choose one of {', '.join(DOMAIN_BY)}")
        if self.domain is not None and self.domain_by != "record":
            raise DataError("--domain names one domain for all text: leave out --domain-by")

    def file_domain(self, file: CorpusFile) -> str:
        """The domain of documents in `file` that have none of their own."""
        if self.domain is not None:
            return self.domain
        return file.folder if self.domain_by == "folder" else file_domain(file.path)

    def asks_records(self, file: CorpusFile) -> bool:
        """Whether a record of `file` may say what its domain is."""
        return self.domain is None and self.domain_by == "record" and not _is_text(file)


class Document(NamedTuple):
    """One text and the domain that it is counted, weighted and evaluated under."""

    text: str
    domain: str


def domains_ahead(corpus: Corpus, reading: Reading) -> set[str]:
    """The domains that are known before the work begins.

    Files whose records may name a domain are looked into only where their own names would be too
    many, and only at the first document of each.
    """
    asked = [file for file in corpus.files if reading.asks_records(file)]
    certain = {reading.file_domain(f) for f in corpus.files if not reading.asks_records(f)}
    if len(certain.union(map(reading.file_domain, asked))) <= MOST_DOMAINS:
        return certain
    for file in asked:
        documents = Reader(reading).read(file)
        certain |= {document.domain for document in islice(documents, 1)}
        if len(certain) > MOST_DOMAINS:
            break
    return certain


def iterate_documents(
    corpus: Corpus, reading: Reading | None = None, *, progress: Progress | None = None
) -> Iterator[Document]:
    """Every document with text in it, in a fixed order.

    Records with an empty text are passed over. A .txt or .md file comes as documents of at most
    about 1 MiB, cut at line ends, so that a file of any size fits in memory. What is not read is
    told on standard error: other files in a folder before the first document, records whose text is
    null and files without text after the last.

    Raises DataError, with the file and the line, row or byte, for a corpus without text, bytes
    that are not UTF-8, bad JSON, a record without text, and damaged or truncated archives.
    """
    for line in corpus.left_out:
        note(line)
    reader = Reader(reading or Reading(), progress)
    for file in corpus.files:
        yield from reader.read(file)
    reader.tell(len(corpus.files))


def note(line: str) -> None:
    """Tell what was left out."""
    print(f"note: {line}", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class LeftOut:
    """What was left out of the files that were read: records whose text is null, and files."""

    nulls: int = 0
    files_with_nulls: int = 0
    first_with_nulls: str = ""
    empty_files: int = 0
    first_empty: str = ""


class Reader:
    """Reads files, and counts what it leaves out."""

    def __init__(self, reading: Reading, progress: Progress | None = None) -> None:
        self._reading, self._progress = reading, progress or (lambda _: None)
        self.left_out = LeftOut()

    def go_on(self, left_out: LeftOut, files: list[CorpusFile]) -> None:
        """Take `files` as read, in which this was left out."""
        self.left_out = left_out
        self._progress(sum(file.bytes for file in files))

    def read(self, file: CorpusFile) -> Iterator[Document]:
        """The documents of a file; see `iterate_documents`."""
        empty, nulls = True, self.left_out.nulls
        for document in self._documents(file):
            if document.text:
                empty = False
                yield document
        # Replaced, not changed, so that who keeps it for a file need not copy it at every one.
        before = self.left_out
        if before.nulls > nulls:
            self.left_out = replace(
                self.left_out,
                files_with_nulls=before.files_with_nulls + 1,
                first_with_nulls=before.first_with_nulls or str(file.path),
            )
        if empty:
            self.left_out = replace(
                self.left_out,
                empty_files=before.empty_files + 1,
                first_empty=before.first_empty or str(file.path),
            )

    def tell(self, files: int) -> None:
        """Tell what was left out. Raises DataError where that was everything in all `files`."""
        left_out = self.left_out
        if left_out.nulls:
            note(
                f'{left_out.nulls} records whose field "{self._reading.text_key}" is null were '
                f"left out, in {left_out.files_with_nulls} files ({left_out.first_with_nulls} is "
                "the first)"
            )
        first = left_out.first_empty
        if left_out.empty_files == files:
            raise DataError(f"{first}: no text in this file; leave it out or fill it")
        if left_out.empty_files:
            note(f"{left_out.empty_files} files have no text ({first} is the first)")

    def _documents(self, file: CorpusFile) -> Iterator[Document]:
        path, reading, domain = file.path, self._reading, self._reading.file_domain(file)
        if _is_text(file):
            for part in _texts(path, unpacked_blocks(file, self._progress)):
                yield Document(part, domain)
            return
        asked = reading.asks_records(file)
        for where, record in self._records(file):
            text = _text(record, reading.text_key, where)
            if text is None:
                self.left_out = replace(self.left_out, nulls=self.left_out.nulls + 1)
            else:
                yield Document(text, (asked and _domain(record, where)) or domain)

    def _records(self, file: CorpusFile) -> Iterator[Record]:
        if file.body == PARQUET:
            return parquet_records(file.path, self._reading.text_key, self._progress)
        read = json_lines if file.body == ".jsonl" else json_values
        return read(file.path, unpacked_blocks(file, self._progress))


def _is_text(file: CorpusFile) -> bool:
    return file.body in (".txt", ".md")


def _text(record: Any, key: str, where: str) -> str | None:
    if not isinstance(record, dict):
        raise DataError(
            f"{where}: a record is an object with fields, not {_kind(record)}; write it as "
            f'{{"{key}": "…"}}, or remove it'
        )
    try:
        text = _look_up(record, key)
    except KeyError:
        raise DataError(f"{where}: {missing_key(key, _fields(record))}") from None
    if isinstance(text, bytes):
        return decode(text, f'{where}: field "{key}", byte')
    if text is None:
        return None
    if not isinstance(text, str):
        raise DataError(
            f'{where}: the field "{key}" is {_kind(text)}, not a string; name the one that holds '
            "the text with --text-key"
        )
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        # JSON can spell half of a surrogate pair, which no UTF-8 text can hold.
        raise DataError(
            f"{where}: the text has a lone surrogate (\\u{ord(text[error.start]):04x}) at "
            f"character {error.start}; repair the record"
        ) from error
    return text


def _look_up(record: dict[str, Any], key: str) -> Any:
    """The value at `key`, a field or by dots a field of a field; KeyError where there is none."""
    if key in record:
        return record[key]
    first, _, rest = key.partition(".")
    inner = record[first]
    if inner is None:
        return None
    if not rest or not isinstance(inner, dict):
        raise KeyError(key)
    return _look_up(inner, rest)


def _fields(record: dict[str, Any], before: str = "") -> list[str]:
    """What `_look_up` finds a value for."""
    found: list[str] = []
    for name, value in record.items():
        inner = isinstance(value, dict) and value
        found += _fields(value, f"{before}{name}.") if inner else [f"{before}{name}"]
    return found


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false"}
    return "null" if value is None else names.get(type(value), "a number")


def _domain(record: dict[str, Any], where: str) -> str | None:
    metadata = record.get("metadata")
    name = metadata.get("domain") if isinstance(metadata, dict) else None
    if name is not None and not isinstance(name, str):
        raise DataError(
            f"{where}: metadata.domain is {_kind(name)}, not a string; name domains by file with "
            "--domain-by file, or all text's with --domain NAME"
        )
    return name


def _texts(path: Path, blocks: Iterator[bytes]) -> Iterator[str]:
    pending, offset = b"", 0
    for block in blocks:
        # Cut only where more follows: the end of a file without a last line end is no document.
        if len(pending) >= DOCUMENT_BYTES:
            cut = pending.rfind(b"\n") + 1 or _last_character(pending)
            yield _file_text(pending[:cut], path, offset)
            pending, offset = pending[cut:], offset + cut
        pending += block
    yield _file_text(pending, path, offset)


def _file_text(data: bytes, path: Path, offset: int) -> str:
    text = decode(data, f"{path}, byte", offset)
    return text if offset else text.removeprefix("\ufeff")


def _last_character(data: bytes) -> int:
    """Where the last UTF-8 character of `data` begins (continuation bytes are 10xxxxxx)."""
    start = len(data) - 1
    while start > 0 and data[start] & 0xC0 == 0x80:
        start -= 1
    return start
