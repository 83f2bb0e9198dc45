"""The documents of a shard: records as they are, text files in parts, HTML and WARC as pages."""

import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datatrove.data import Document

from teleflm.cleaning.shards import Shard
from teleflm.data.fields import domain_of, text_of
from teleflm.data.find import HTML, WARC, CorpusFile
from teleflm.data.records import records_of
from teleflm.data.sources import is_text, text_parts
from teleflm.data.unpack import Progress, unpacked_blocks
from teleflm.errors import DataError, MissingExtraError, TeleflmError

PAGE = "html"
"""What `metadata.format` says of a document whose text is yet to be extracted."""
_LARGEST_INTEGER = 1 << 63


class ShardReader:
    """Reads a shard, and counts the records whose text is null, and the empty ones."""

    def __init__(self, shard: Shard, progress: Progress) -> None:
        self._shard, self._progress = shard, progress
        self.without_text = 0

    def documents(self) -> Iterator[Document]:
        """Every document with text in it.

        Raises:
            DataError: with the file and the line, row or byte, for what cannot be read.
            MissingExtraError: a library that a kind of file asks for is not installed.
        """
        for file in self._shard.files:
            name = file.path.relative_to(self._shard.root).as_posix()
            for number, (text, own) in enumerate(self._texts(file)):
                if not text:
                    self.without_text += 1
                    continue
                identity = own.pop("id", None)
                if identity in (None, ""):
                    identity = f"{self._shard.source.name}/{name}/{number}"
                yield Document(text, str(identity), metadata=self._metadata(own))

    def _metadata(self, own: dict[str, Any]) -> dict[str, Any]:
        source = self._shard.source
        domain = source.domain or own.get("domain") or source.name
        return own | {
            "source": source.name,
            "domain": domain,
            "language": source.language,
            "weight": source.epochs,
        }

    def _texts(self, file: CorpusFile) -> Iterator[tuple[str | None, dict[str, Any]]]:
        """Texts with what is known of each: its `id` too, where it has one."""
        if file.body in HTML:
            data = b"".join(unpacked_blocks(file, self._progress))
            yield decoded_page(data), {"format": PAGE}
        elif file.body == WARC:
            yield from warc_pages(file.path, unpacked_blocks(file, self._progress))
        elif is_text(file):
            for part in text_parts(file.path, unpacked_blocks(file, self._progress)):
                yield part, {}
        else:
            yield from self._records(file)

    def _records(self, file: CorpusFile) -> Iterator[tuple[str | None, dict[str, Any]]]:
        key = self._shard.source.text_key
        for where, record in records_of(file, key, self._progress, whole=True):
            text = text_of(record, key, where)
            apart = (key, "metadata", "id", "domain")
            own = {name: value for name, value in record.items() if name not in apart}
            metadata = record.get("metadata")
            own |= metadata if isinstance(metadata, dict) else {}
            own["id"] = own.get("id") if record.get("id") in (None, "") else record["id"]
            own["domain"] = domain_of(record, where)
            yield text, plain(own)


def plain(value: Any) -> Any:
    """`value` as any JSON library writes it: what is no JSON, as text."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "replace").decode()
    if isinstance(value, int):
        return value if abs(value) < _LARGEST_INTEGER else str(value)
    if isinstance(value, dict):
        return {plain(str(key)): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return str(value)


def decoded_page(data: bytes) -> str:
    """A page's bytes as text, by what it says of itself or what they look like."""
    try:
        from trafilatura.utils import decode_file
    except ImportError:
        raise MissingExtraError("trafilatura", "clean") from None
    return decode_file(data)


def warc_pages(path: Path, blocks: Iterator[bytes]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The HTML pages among the responses of a WARC file, and the texts of a WET file.

    Raises:
        DataError: the file is damaged or cut short.
    """
    try:
        from warcio.archiveiterator import ArchiveIterator
    except ImportError:
        raise MissingExtraError("warcio", "clean") from None
    # The library takes the end of a file, wherever it is cut, for the end of its records.
    stream = _Stream(blocks)
    cut = DataError(f"{path}: a WARC file that is cut short or damaged; fetch it again")
    records = ArchiveIterator(io.BufferedReader(stream), check_digests=False)
    while True:
        try:
            record = next(records, None)
            body = b"" if record is None else record.content_stream().read()
        except TeleflmError:  # of what unpacks it
            raise
        # A header that is cut, or lacks a field, makes it raise what no list has.
        except Exception as error:
            raise cut from error
        if record is None:
            break
        if record.raw_stream.limit:
            raise cut
        page = _page(record, body)
        if page is not None:
            yield page
    if stream.last != b"\r\n\r\n":
        raise cut


def _page(record: Any, body: bytes) -> tuple[str, dict[str, Any]] | None:
    headers = record.rec_headers
    known = {
        "id": headers.get_header("WARC-Record-ID"),
        "url": headers.get_header("WARC-Target-URI"),
        "date": headers.get_header("WARC-Date"),
    }
    known = {name: value for name, value in known.items() if value}
    if record.rec_type == "conversion":
        return body.decode("utf-8", "replace"), known
    if record.rec_type != "response" or record.http_headers is None:
        return None
    kind = record.http_headers.get_header("Content-Type") or ""
    if "html" not in kind.lower():
        return None
    return decoded_page(body), known | {"format": PAGE}


class _Stream(io.RawIOBase):
    """Blocks as a file, which remembers its last four bytes."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks, self._block = blocks, memoryview(b"")
        self.last = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._block:
            block = next(self._blocks, None)
            if block is None:
                return 0
            self._block = memoryview(block)
            self.last = (self.last + block[-4:])[-4:]
        size = min(len(buffer), len(self._block))
        buffer[:size] = self._block[:size]
        self._block = self._block[size:]
        return size
