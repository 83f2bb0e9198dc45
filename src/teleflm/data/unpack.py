"""The bytes of a corpus file, unpacked, in blocks; and their text."""

import os
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import zstandard

from teleflm.data.find import CorpusFile
from teleflm.errors import DataError

BLOCK_BYTES = 1 << 20
# A bite of a highly compressed file may be many thousand times as large once unpacked.
PACKED_BYTES = 1 << 12
# Frames written with `zstd --long=31` need a window this large; the library refuses by default.
ZSTD_WINDOW_BYTES = 1 << 31
_GZIP_FORMAT = 31

Progress = Callable[[int], None]
"""Called with the number of bytes read from disk since the call before."""


def unpacked_blocks(file: CorpusFile, progress: Progress) -> Iterator[bytes]:
    """The content of `file` in blocks, unpacked.

    Raises DataError where the file cannot be read, and for a damaged or truncated archive.
    """
    blocks = _blocks(file, progress)
    kind = {".gz": "gzip", ".zst": "zstd"}.get(file.packing)
    return _gathered(_unpacked(file.path, kind, blocks)) if kind else blocks


def _gathered(parts: Iterator[bytes]) -> Iterator[bytes]:
    gathered, size = [], 0
    for part in parts:
        gathered.append(part)
        size += len(part)
        if size >= BLOCK_BYTES:
            yield b"".join(gathered)
            gathered, size = [], 0
    yield b"".join(gathered)


def _blocks(file: CorpusFile, progress: Progress) -> Iterator[bytes]:
    path, left = file.path, file.bytes
    try:
        # Not `Path.open`, which takes several times as long where files are small and many.
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        # A pipe has no size, and is read until it ends. Of a file no more is asked for than it has:
        # the memory for a whole block takes longer than reading a small file does.
        while block := os.read(descriptor, min(left, BLOCK_BYTES) if left > 0 else BLOCK_BYTES):
            progress(len(block))
            yield block
            left -= len(block)
            if not left:
                break
    finally:
        os.close(descriptor)


def _unpacked(path: Path, kind: str, blocks: Iterator[bytes]) -> Iterator[bytes]:
    # Readers of either library take a truncated archive, or garbage behind one, for a complete
    # file, so each frame (or member, in gzip's words) is followed to its end by hand.
    begin: Callable[[], Any] = partial(zlib.decompressobj, _GZIP_FORMAT)
    if kind == "zstd":
        begin = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES).decompressobj
    frame = None
    for packed in (
        block[start : start + PACKED_BYTES]
        for block in blocks
        for start in range(0, len(block), PACKED_BYTES)
    ):
        while packed:
            if frame is None:
                if kind == "gzip" and not (packed := packed.lstrip(b"\0")):
                    break  # gzip files may be padded with zeros
                frame = begin()
            try:
                content = frame.decompress(packed)
            except (zstandard.ZstdError, zlib.error) as error:
                raise DataError(
                    f"{path}: damaged {kind} archive ({error}); fetch it again"
                ) from error
            packed = b""
            if frame.eof:
                packed, frame = frame.unused_data, None
            if content:
                yield content
    if frame is not None:
        raise DataError(f"{path}: truncated {kind} archive; fetch it again")


def decode(data: bytes, where: str, offset: int = 0) -> str:
    """`data` as UTF-8. Raises DataError with `where` and the byte, counted from `offset`."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where} {offset + error.start}: not UTF-8 (0x{data[error.start]:02x}); convert the "
            "file, for example with: iconv -f ENCODING -t UTF-8"
        ) from error
