"""Token files in the layout of Megatron-Core's indexed dataset (`.bin` and `.idx`).

`x.bin` is the tokens of all sequences, one after the other. `x.idx`, little-endian, is
    9 bytes  b"MMIDIDX" and two zero bytes
    uint64   version, 1
    uint8    code of the token type (see `_CODES`)
    uint64   number of sequences, n
    uint64   number of document boundaries, d
    int32    (n,) tokens in each sequence
    int64    (n,) byte in x.bin at which each sequence begins
    int64    (d,) sequence at which each document begins, and n
and for multimodal data n mode bytes, which are ignored here. We write one sequence a document.
"""

import contextlib
import functools
import hashlib
import os
import struct
from array import array
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from teleflm.errors import DataError

_MAGIC = b"MMIDIDX\x00\x00"
_HEADER = struct.Struct("<9sQBQQ")
_CODES: dict[int, type[np.integer]] = {
    1: np.uint8,
    2: np.int8,
    3: np.int16,
    4: np.int32,
    5: np.int64,
    8: np.uint16,
}
# Megatron's own limit for 16-bit tokens, a little below 65,536.
_SHORT_VOCABULARY = 65_500
# What a digest reads: 64 stretches of 65,536 tokens.
_STRETCH = 1 << 16
_STRETCHES = 64
# What is copied at a time.
_BLOCK = 1 << 20


def token_dtype(vocab_size: int) -> np.dtype[np.integer]:
    """The type in which Megatron stores tokens of such a vocabulary: uint16 or int32."""
    return np.dtype(np.uint16 if vocab_size < _SHORT_VOCABULARY else np.int32)


def _beside(prefix: Path, suffix: str) -> Path:
    # Not with_suffix: a prefix may have dots of its own.
    return prefix.with_name(prefix.name + suffix)


class IndexedWriter:
    """Writes `prefix.bin` and `prefix.idx`; nothing has these names before `close`."""

    def __init__(self, prefix: Path, dtype: npt.DTypeLike, *, mode: str = "wb") -> None:
        self._prefix = Path(prefix)
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._code = next(code for code, kind in _CODES.items() if self._dtype == np.dtype(kind))
        self._range = np.iinfo(self._dtype)
        self._lengths = array("i")
        self._saved = 0
        self.open_tokens = 0
        """Tokens of the document that is not ended yet."""
        aside = _beside(self._prefix, ".bin.partial")
        self._bin: BinaryIO = aside.open(mode, buffering=1 << 20)  # type: ignore[assignment]

    def add(self, tokens: npt.ArrayLike) -> None:
        """Append `tokens`, shape (n,), and end the document. Raises DataError as `extend` does."""
        self.extend(tokens)
        self._lengths.append(self.open_tokens)
        self.open_tokens = 0

    def extend(self, tokens: npt.ArrayLike) -> None:
        """Append `tokens`, shape (n,), to the document that is open.

        Raises DataError where one does not fit.
        """
        row = np.asarray(tokens)
        # What has the file's own type fits it.
        if not row.size:
            return
        if row.dtype != self._dtype and not (
            self._range.min <= row.min() and row.max() <= self._range.max
        ):
            raise DataError(
                f"{self._prefix}: tokens {row.min()} to {row.max()} do not fit {self._dtype.name}"
            )
        self._bin.write(np.ascontiguousarray(row, self._dtype).data)
        self.open_tokens += row.size

    def save(self) -> list[int]:
        """Have all that was added on disk; what `resume` takes."""
        self._bin.flush()
        with _beside(self._prefix, ".lengths.partial").open("ab") as file:
            file.truncate(self._saved * self._lengths.itemsize)
            file.write(self._lengths[self._saved :].tobytes())
        self._saved = len(self._lengths)
        return [self._saved, self.open_tokens]

    @classmethod
    def resume(cls, prefix: Path, dtype: npt.DTypeLike, saved: list[int]) -> "IndexedWriter":
        """A writer as it was when `save` returned `saved`. Raises DataError for files cut short."""
        documents, open_tokens = saved
        lengths = array("i")
        try:
            with _beside(prefix, ".lengths.partial").open("rb") as file:
                lengths.fromfile(file, documents)
            size = (sum(lengths) + open_tokens) * np.dtype(dtype).itemsize
            if _beside(prefix, ".bin.partial").stat().st_size < size:
                raise EOFError
            os.truncate(_beside(prefix, ".bin.partial"), size)
        except (OSError, EOFError, ValueError) as error:
            raise DataError(f"{prefix}: what was written of it is not whole") from error
        writer = cls(prefix, dtype, mode="ab")
        writer._lengths, writer._saved, writer.open_tokens = lengths, documents, open_tokens
        return writer

    @property
    def documents(self) -> int:
        """Documents added so far."""
        return len(self._lengths)

    def close(self, order: npt.NDArray[np.int64] | None = None) -> None:
        """Give both files their names, the index last: it makes the pair whole.

        They are not synced: that is for who has written the whole folder to do. `order`, shape
        (n,), has the numbers of the documents as they are to stand, some perhaps more than once.
        """
        lengths = np.array(self._lengths, dtype="<i4")
        written = _beside(self._prefix, ".bin.partial")
        if order is not None:
            self._bin.close()
            # Beside what was written, from which a stopped process goes on.
            self._bin = _beside(self._prefix, ".bin.ordered.partial").open("wb", 1 << 20)
            with written.open("rb") as source:
                self._copy(source, order, lengths)
            written, lengths = Path(self._bin.name), lengths[order]
        ends = np.cumsum(lengths, dtype="<i8") * self._dtype.itemsize
        pointers = np.concatenate([np.zeros(1, "<i8"), ends])[: lengths.size]
        boundaries = np.arange(lengths.size + 1, dtype="<i8")
        self._bin.close()
        aside = _beside(self._prefix, ".idx.partial")
        with aside.open("wb") as file:
            file.write(_HEADER.pack(_MAGIC, 1, self._code, lengths.size, boundaries.size))
            for table in (lengths, pointers, boundaries):
                file.write(table.tobytes())
        written.replace(_beside(self._prefix, ".bin"))
        aside.replace(_beside(self._prefix, ".idx"))
        for suffix in (".lengths.partial", ".bin.partial"):
            _beside(self._prefix, suffix).unlink(missing_ok=True)

    def _copy(
        self, source: BinaryIO, order: npt.NDArray[np.int64], lengths: npt.NDArray[np.int32]
    ) -> None:
        sizes = lengths.astype(np.int64) * self._dtype.itemsize
        starts = np.cumsum(sizes) - sizes
        for number in order:
            source.seek(starts[number])
            left = int(sizes[number])
            while left:
                left -= self._bin.write(source.read(min(left, _BLOCK)))

    def leave(self) -> None:
        """Give up, and leave what was written so far."""
        with contextlib.suppress(OSError):  # on a full disk the last buffer cannot be written
            self._bin.close()

    def discard(self) -> None:
        """Give up: remove what was written so far."""
        self.leave()
        for suffix in (".bin.partial", ".bin.ordered.partial", ".idx.partial", ".lengths.partial"):
            _beside(self._prefix, suffix).unlink(missing_ok=True)

    def __enter__(self) -> "IndexedWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()


class IndexedTokens:
    """The documents of `prefix.bin` and `prefix.idx`, memory-mapped; `len` counts documents."""

    def __init__(self, prefix: Path) -> None:
        """Raises DataError, with the file, where one is missing, damaged, cut short or empty."""
        self.path = _beside(Path(prefix), ".bin")
        self._index = _beside(Path(prefix), ".idx")
        for file in (self._index, self.path):
            if not file.is_file():
                raise DataError(f"{file}: no such file; a token file is a pair of .bin and .idx")
        with self._index.open("rb") as stream:
            header = stream.read(_HEADER.size)
        if header[: len(_MAGIC)] != _MAGIC:
            raise DataError(f"{self._index}: not an index of Megatron's (magic bytes missing)")
        if len(header) < _HEADER.size:
            raise self._damaged(self._index)
        _, version, code, sequences, boundaries = _HEADER.unpack(header)
        if version != 1 or code not in _CODES:
            raise DataError(
                f"{self._index}: index version {version} with token type {code} is unknown; "
                f"version 1 with token types {sorted(_CODES)} can be read"
            )
        dtype = np.dtype(_CODES[code]).newbyteorder("<")
        size = _HEADER.size + 12 * sequences + 8 * boundaries
        if self._index.stat().st_size not in (size, size + sequences):
            raise self._damaged(self._index)
        if not sequences or not self.path.stat().st_size:
            raise DataError(f"{self.path}: no tokens in it; prepare it again from a corpus")
        table = np.memmap(self._index, np.uint8, "r", _HEADER.size, (size - _HEADER.size,))
        self._sequence_lengths = table[: 4 * sequences].view("<i4")
        self._pointers = table[4 * sequences : 12 * sequences].view("<i8")
        self._boundaries = table[12 * sequences :].view("<i8")
        end = int(self._pointers[-1]) + int(self._sequence_lengths[-1]) * dtype.itemsize
        if end != self.path.stat().st_size:
            raise self._damaged(self.path)
        self.tokens: npt.NDArray[np.integer] = np.memmap(self.path, dtype, "r")

    @staticmethod
    def _damaged(file: Path) -> DataError:
        return DataError(f"{file}: damaged or cut short; copy or prepare it again")

    @functools.cached_property
    def offsets(self) -> npt.NDArray[np.int64]:
        """Token at which each document begins, and the end, shape (documents + 1,).

        Raises DataError for a damaged index.
        """
        ends = np.cumsum(self._sequence_lengths, dtype=np.int64)
        starts = np.concatenate([np.zeros(1, np.int64), ends])
        if (
            not np.array_equal(starts[:-1] * self.tokens.itemsize, self._pointers)
            or self._boundaries[0] != 0
            or self._boundaries[-1] != self._sequence_lengths.size
            or np.any(np.diff(self._boundaries) < 0)
        ):
            raise self._damaged(self._index)
        return starts[self._boundaries]

    @functools.cached_property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens in each document, shape (documents,). Raises DataError for a damaged index."""
        return np.diff(self.offsets)

    def digest(self) -> str:
        """SHA-256 of the number of tokens and of the tokens, whatever type they are stored in.

        Of more than 4,194,304 tokens it takes 64 stretches of 65,536 spread evenly from the first
        token to the last, so that terabytes take no longer than megabytes. Another corpus shows in
        the number or in every stretch; a few tokens replaced by as many others between two
        stretches do not show.
        """
        size = self.tokens.size
        digest = hashlib.sha256(f"{size}\n".encode())
        starts: Iterable[int] = range(0, size, _STRETCH)
        if size > _STRETCH * _STRETCHES:
            last = size - _STRETCH
            starts = (last * i // (_STRETCHES - 1) for i in range(_STRETCHES))
        for start in starts:
            digest.update(self.tokens[start : start + _STRETCH].astype("<i8").tobytes())
        return digest.hexdigest()

    def document(self, i: int) -> npt.NDArray[np.integer]:
        """The tokens of document `i`, a view. Raises IndexError; DataError for a damaged index."""
        i = range(len(self))[i]
        return self.tokens[self.offsets[i] : self.offsets[i + 1]]

    def __len__(self) -> int:
        return self._boundaries.size - 1
