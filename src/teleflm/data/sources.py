"""Documents out of text, JSON and Parquet files, packed or not, streamed in bounded memory."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from teleflm.data.domains import MOST_DOMAINS, file_domain
from teleflm.data.fields import copies_of, domain_of, text_of
from teleflm.data.find import Corpus, CorpusFile
from teleflm.data.records import records_of
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
    right below the path that was named. `weight_key` is the field of a document's weight, see
    `copies_of`; without one each document is there once.
    """

    text_key: str = "text"
    domain: str | None = None
    domain_by: str = "record"
    weight_key: str | None = None

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
        return self.domain is None and self.domain_by == "record" and not is_text(file)


class Document(NamedTuple):
    """One text, the domain that it is counted, weighted and evaluated under, and how often it is to
    be trained on."""

    text: str
    domain: str
    copies: int = 1


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
    """What was left out of the files that were read: records whose text is null, those that their
    weight leaves out, and files."""

    nulls: int = 0
    files_with_nulls: int = 0
    first_with_nulls: str = ""
    empty_files: int = 0
    first_empty: str = ""
    by_weight: int = 0

    def plus(self, later: "LeftOut") -> "LeftOut":
        """What was left out of these files and of `later` ones."""
        return LeftOut(
            nulls=self.nulls + later.nulls,
            files_with_nulls=self.files_with_nulls + later.files_with_nulls,
            first_with_nulls=self.first_with_nulls or later.first_with_nulls,
            empty_files=self.empty_files + later.empty_files,
            first_empty=self.first_empty or later.first_empty,
            by_weight=self.by_weight + later.by_weight,
        )


class Reader:
    """Reads files, and counts what it leaves out."""

    def __init__(self, reading: Reading, progress: Progress | None = None) -> None:
        self._reading, self._progress = reading, progress or (lambda _: None)
        self.left_out = LeftOut()

    def go_on(self, left_out: LeftOut, files: Sequence[CorpusFile]) -> None:
        """Take `files` as read, in which this was left out."""
        self.left_out = left_out
        self._progress(sum(file.bytes for file in files))

    def read(self, file: CorpusFile) -> Iterator[Document]:
        """The documents of a file; see `iterate_documents`."""
        empty, nulls = True, self.left_out.nulls
        for document in self._documents(file):
            if document.text:
                empty = False
                if document.copies:
                    yield document
                else:
                    count = self.left_out.by_weight + 1
                    self.left_out = replace(self.left_out, by_weight=count)
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
        if left_out.by_weight:
            note(f"{left_out.by_weight:,} documents were left out by their weight")
        if left_out.empty_files:
            note(f"{left_out.empty_files} files have no text ({first} is the first)")

    def _documents(self, file: CorpusFile) -> Iterator[Document]:
        path, reading, domain = file.path, self._reading, self._reading.file_domain(file)
        if is_text(file):
            for part in text_parts(path, unpacked_blocks(file, self._progress)):
                yield Document(part, domain)
            return
        asked, weight_key = reading.asks_records(file), reading.weight_key
        also = ("id", weight_key) if weight_key else ()
        for where, record in records_of(file, reading.text_key, self._progress, also=also):
            text = text_of(record, reading.text_key, where)
            if text is None:
                self.left_out = replace(self.left_out, nulls=self.left_out.nulls + 1)
                continue
            copies = copies_of(record, text, weight_key, where) if weight_key else 1
            yield Document(text, (asked and domain_of(record, where)) or domain, copies)


def check_weights(corpus: Corpus, reading: Reading) -> None:
    """Raises DataError where documents are to have weights, and a file has no records with any."""
    for file in corpus.files if reading.weight_key else []:
        if is_text(file):
            raise DataError(
                f"{file.path}: text without records has no weights; write it as records with "
                f'a field "{reading.weight_key}", or prepare it without --weight-key'
            )


def is_text(file: CorpusFile) -> bool:
    """Whether all of the file is text, and no record says anything of it."""
    return file.body in (".txt", ".md")


def text_parts(path: Path, blocks: Iterator[bytes]) -> Iterator[str]:
    """A text file in documents of about DOCUMENT_BYTES, cut at line ends where there are any.

    Raises DataError, with the byte, for bytes that are not UTF-8.
    """
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
