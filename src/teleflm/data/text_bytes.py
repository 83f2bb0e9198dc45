"""How much text the documents of a token file stand for, where tokens alone do not say it.

`NAME.bytes` beside `NAME.bin` holds a little-endian int64 for each document: the UTF-8 bytes of its
text, as it was in the corpus. Stores keep it of held-out parts, for bits per byte.
"""

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from teleflm.data.indexed import IndexedTokens
from teleflm.errors import DataError

SUFFIX = ".bytes"


def write_text_bytes(prefix: Path, sizes: Iterable[int]) -> None:
    """Write the bytes of each document of the token file `prefix`."""
    with prefix.with_name(prefix.name + SUFFIX).open("wb") as file:
        file.write(np.fromiter(sizes, "<i8").tobytes())
        file.flush()
        os.fsync(file.fileno())


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
    tokens: IndexedTokens, sizes: npt.NDArray[np.int64], first: int, last: int
) -> float:
    """Bytes of text that the tokens `first` … `last - 1` stand for.

    Whole documents count to the byte; of one that is cut, its tokens have equal shares.
    """
    ends = np.concatenate([[0], np.cumsum(tokens.lengths)])
    totals = np.concatenate([[0], np.cumsum(sizes)])
    begun, done = np.interp([first, last], ends, totals)
    return float(done - begun)
