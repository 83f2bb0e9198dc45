"""How much text the documents of a token file stand for, where tokens alone do not say it.

`NAME.bytes` beside `NAME.bin` holds a little-endian int64 for each document: the UTF-8 bytes of its
text, as it was in the corpus. Stores keep it of held-out parts, for bits per byte.
"""

import contextlib
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt

from teleflm.data.indexed import IndexedTokens
from teleflm.errors import DataError

SUFFIX = ".bytes"
_ONE = struct.Struct("<q")


class TextBytesWriter:
    """Writes the bytes of each document of a token file; nothing has the name before `close`."""

    def __init__(self, prefix: Path, saved: int = 0) -> None:
        """A new one for the token file `prefix`, or as it was when `saved` documents were saved.

        Raises DataError for a file cut short.
        """
        self._path = prefix.with_name(prefix.name + SUFFIX)
        self._aside = self._path.with_name(self._path.name + ".partial")
        there = self._aside.stat().st_size if self._aside.is_file() else 0
        if there < saved * _ONE.size:
            raise DataError(f"{self._path}: what was written of it is not whole")
        self._file = self._aside.open("ab")
        self._file.truncate(saved * _ONE.size)

    def add(self, size: int) -> None:
        """Append the bytes of the next document."""
        self._file.write(_ONE.pack(size))

    def save(self) -> None:
        """Have all that was added on disk."""
        self._file.flush()

    def close(self) -> None:
        """Give the file its name; `IndexedWriter.close` says what that does not do."""
        self._file.close()
        self._aside.replace(self._path)

    def leave(self) -> None:
        """Give up, and leave what was written so far."""
        with contextlib.suppress(OSError):  # on a full disk the last buffer cannot be written
            self._file.close()

    def discard(self) -> None:
        """Give up: remove what was written so far."""
        self.leave()
        self._aside.unlink(missing_ok=True)


def read_text_bytes(prefix: Path, tokens: IndexedTokens) -> npt.NDArray[np.int64] | None:
    """The bytes of each document of `tokens`, the token file `prefix`, shape (documents,).

    None where there is no such file: with Megatron's own pairs, and where tokens say it themselves.
    Raises DataError where it is of other documents.
    """
    file = prefix.with_name(prefix.name + SUFFIX)
    if not file.is_file():
        return None
    sizes = np.fromfile(file, "<i8")
    if sizes.size != len(tokens) or file.stat().st_size != sizes.nbytes or sizes.min() < 0:
        raise DataError(
            f"{file}: {sizes.size} documents where {tokens.path} has {len(tokens)}, or damaged; "
            "prepare the store again"
        )
    return sizes


def text_bytes_between(
    tokens: IndexedTokens,
    sizes: npt.NDArray[np.int64],
    opening: int,
    first: int,
    last: int,
    *,
    but_first: bool = False,
) -> float:
    """Bytes of text that the tokens `first` … `last - 1` stand for, `but_first` ones of documents
    where that is so.

    Whole documents count to the byte; of one that is cut, its tokens have equal shares. The
    `opening` tokens that begin each document and the one that ends it are no text.
    """
    ends = np.cumsum(tokens.lengths)
    totals = np.cumsum(sizes)
    texts = np.stack([ends - tokens.lengths + opening, ends - 1], axis=1)
    done = np.stack([totals - sizes, totals], axis=1)

    def until(places: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        return np.interp(places, texts.ravel(), done.ravel())

    before, after = until(np.array([first, last]))
    begins = tokens.offsets[:-1]
    begins = begins[(begins >= first) & (begins < last)] if but_first else begins[:0]
    return float(after - before - (until(begins + 1) - until(begins)).sum())
