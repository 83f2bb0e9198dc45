"""Documents out of .txt, .jsonl, .jsonl.zst and .parquet files, streamed in bounded memory.

A record's text stands in the field `text`. Its domain is the caller's, else the record's
`metadata.domain`, else the file's name up to the first dot.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import zstandard

from teleflm.errors import DataError, MissingExtraError

SUFFIXES = (".txt", ".jsonl", ".jsonl.zst", ".parquet")
BLOCK_BYTES = 1 << 20
# A small bite of a highly compressed file may be a hundred times as large once unpacked.
COMPRESSED_BLOCK_BYTES = 1 << 16
# Frames written with `zstd --long=31` need a window this large; the library refuses by default.
ZSTD_WINDOW_BYTES = 1 << 31

Progress = Callable[[int], None]
"""Called with the number of bytes read from disk since the call before."""


class Document(NamedTuple):
    """One text and the domain that it is counted, weighted and evaluated under."""

    text: str
    domain: str


def find_files(paths: Iterable[Path]) -> list[Path]:
    """The corpus files that `paths` name, folders searched through, in sorted order per path.

    Hidden files are passed over inside folders, and so are files of other kinds.
    Raises DataError for a path that is missing, of another kind, or a folder without corpus files.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            files = [
                file
                for file in sorted(path.rglob("*"))
                if file.name.endswith(SUFFIXES)
                and file.is_file()
                and not any(part.startswith(".") for part in file.relative_to(path).parts)
            ]
            if not files:
                raise DataError(f"{path}: no {', '.join(SUFFIXES)} file in this folder")
            found += files
        elif not path.exists():
            raise DataError(f"{path}: no such file or folder")
        elif path.name.endswith(SUFFIXES):
            found.append(path)
        else:
            raise DataError(
                f"{path}: not a kind of corpus file; convert it to one of {', '.join(SUFFIXES)}"
            )
    return found


def corpus_bytes(paths: Iterable[Path]) -> int:
    """Bytes on disk of all corpus files under `paths`: what `Progress` counts up to."""
    return sum(file.stat().st_size for file in find_files(paths))


def iterate_documents(
    paths: Iterable[Path], domain: str | None = None, *, progress: Progress | None = None
) -> Iterator[Document]:
    """Every document with text in it, in a fixed order.

    Records with an empty text are passed over. A .txt file comes as documents of at most about
    1 MiB, cut at line ends, so that a file of any size fits in memory.

    Raises DataError, with the file and the line, row or byte, for a missing or empty corpus, bytes
    that are not UTF-8, bad JSON, a record without text, and damaged or truncated archives.
    """
    report = progress or (lambda _: None)
    for path in find_files(paths):
        empty = True
        for document in _documents(path, domain, report):
            if document.text:
                empty = False
                yield document
        if empty:
            raise DataError(f"{path}: no text in this file; leave it out or fill it")


def _documents(path: Path, domain: str | None, progress: Progress) -> Iterator[Document]:
    if path.name.endswith(".parquet"):
        records = _parquet_records(path, progress)
    elif path.name.endswith(".txt"):
        stem = domain or _stem(path)
        yield from (Document(text, stem) for text in _text_blocks(path, progress))
        return
    else:
        records = _json_records(path, progress)
    for where, record in records:
        yield Document(_text(record, where), domain or _domain(record, where) or _stem(path))


def _stem(path: Path) -> str:
    return path.name.split(".")[0]


def _text(record: Any, where: str) -> str:
    text = record.get("text") if isinstance(record, dict) else None
    if not isinstance(text, str):
        raise DataError(f'{where}: no string field "text" in this record')
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        # JSON can spell half of a surrogate pair, which no UTF-8 text can hold.
        raise DataError(
            f"{where}: the text has a lone surrogate (\\u{ord(text[error.start]):04x}) at "
            f"character {error.start}; repair the record"
        ) from error
    return text


def _domain(record: dict[str, Any], where: str) -> str | None:
    metadata = record.get("metadata")
    name = metadata.get("domain") if isinstance(metadata, dict) else None
    if name is not None and not isinstance(name, str):
        raise DataError(f"{where}: metadata.domain is not a string")
    return name


def _blocks(path: Path, size: int, progress: Progress) -> Iterator[bytes]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    with file:
        while block := file.read(size):
            progress(len(block))
            yield block


def _unpacked(path: Path, progress: Progress) -> Iterator[bytes]:
    # The stream reader of the library takes a truncated file for a complete one, so each frame is
    # followed to its end by hand.
    library = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES)
    frame = None
    for packed in _blocks(path, COMPRESSED_BLOCK_BYTES, progress):
        while packed:
            frame = frame or library.decompressobj()
            try:
                unpacked = frame.decompress(packed)
            except zstandard.ZstdError as error:
                raise DataError(
                    f"{path}: damaged zstd archive ({error}); fetch it again"
                ) from error
            packed = b""
            if frame.eof:
                packed, frame = frame.unused_data, None
            if unpacked:
                yield unpacked
    if frame is not None:
        raise DataError(f"{path}: truncated zstd archive; fetch it again")


def _lines(blocks: Iterator[bytes]) -> Iterator[bytes]:
    pending: list[bytes] = []
    for block in blocks:
        *lines, rest = block.split(b"\n")
        if lines:
            yield b"".join([*pending, lines[0]])
            yield from lines[1:]
            pending = []
        pending.append(rest)
    yield b"".join(pending)


def _json_records(path: Path, progress: Progress) -> Iterator[tuple[str, Any]]:
    packed = path.name.endswith(".zst")
    blocks = _unpacked(path, progress) if packed else _blocks(path, BLOCK_BYTES, progress)
    for number, line in enumerate(_lines(blocks), start=1):
        where = f"{path}, line {number}"
        text = _decode(line, f"{where}, byte", 0)
        if number == 1:
            text = text.removeprefix("\ufeff")
        if text.strip():
            try:
                yield where, json.loads(text)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{where}: not valid JSON ({error})") from error


def _text_blocks(path: Path, progress: Progress) -> Iterator[str]:
    pending, offset = b"", 0
    for block in _blocks(path, BLOCK_BYTES, progress):
        # Cut only where more follows: the end of a file without a last line end is no document.
        if len(pending) >= BLOCK_BYTES:
            cut = pending.rfind(b"\n") + 1 or _last_character(pending)
            yield _block_text(pending[:cut], path, offset)
            pending, offset = pending[cut:], offset + cut
        pending += block
    yield _block_text(pending, path, offset)


def _block_text(data: bytes, path: Path, offset: int) -> str:
    text = _decode(data, f"{path}, byte", offset)
    return text if offset else text.removeprefix("\ufeff")


def _last_character(data: bytes) -> int:
    """Where the last UTF-8 character of `data` begins (continuation bytes are 10xxxxxx)."""
    start = len(data) - 1
    while start > 0 and data[start] & 0xC0 == 0x80:
        start -= 1
    return start


def _decode(data: bytes, where: str, offset: int) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where} {offset + error.start}: not UTF-8 (0x{data[error.start]:02x}); convert the "
            "file, for example with: iconv -f ENCODING -t UTF-8"
        ) from error


def _parquet_records(path: Path, progress: Progress) -> Iterator[tuple[str, Any]]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtraError("pyarrow", "data") from error

    size, row, reported = path.stat().st_size, 0, 0
    try:
        with parquet.ParquetFile(path) as file:
            columns = [name for name in file.schema_arrow.names if name in ("text", "metadata")]
            if "text" not in columns:
                raise DataError(f'{path}: no column "text"; it has {file.schema_arrow.names}')
            for batch in file.iter_batches(batch_size=1024, columns=columns):
                for record in batch.to_pylist():
                    row += 1
                    yield f"{path}, row {row}", record
                done = size * row // file.metadata.num_rows
                progress(done - reported)
                reported = done
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: damaged parquet file after row {row} ({error})") from error
