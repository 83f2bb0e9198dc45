"""Documents that stand in a token file more than once, for their weight."""

import os
from array import array
from pathlib import Path

import numpy as np
import numpy.typing as npt

from teleflm.errors import DataError

_SUFFIX = ".copies.partial"


class Repeats:
    """Which documents of a token file being written are there how often, where it is not once."""

    def __init__(self, prefix: Path, saved: int = 0) -> None:
        """None of the token file `prefix`, or what there were when `save` returned `saved`.

        Raises DataError for a file cut short.
        """
        self._path = prefix.with_name(prefix.name + _SUFFIX)
        self._pairs = array("q")
        """Number of a document, its copies, the next one's number, …"""
        self._saved = saved
        if saved:
            try:
                with self._path.open("rb") as file:
                    self._pairs.fromfile(file, saved)
                os.truncate(self._path, saved * self._pairs.itemsize)
            except (OSError, EOFError) as error:
                raise DataError(f"{self._path}: what was written of it is not whole") from error

    def add(self, document: int, copies: int) -> None:
        """Have document number `document` there `copies` times."""
        if copies != 1:
            self._pairs.extend((document, copies))

    def save(self) -> int:
        """Have all that was added on disk; what a new object takes."""
        if len(self._pairs) > self._saved:
            with self._path.open("ab") as file:
                file.truncate(self._saved * self._pairs.itemsize)
                file.write(self._pairs[self._saved :].tobytes())
            self._saved = len(self._pairs)
        return self._saved

    def order(self, documents: int) -> npt.NDArray[np.int64] | None:
        """The documents in the order in which they stand, shape (documents + repeats,), or None
        where each of the `documents` is there once.

        First copies are in their order. The c copies of a document are evenly apart, a c-th of the
        documents from one to the next and on over the end: so no sequence has a text twice, unless
        it is as long as that, and a document with fewer copies than half of the documents never
        stands beside itself.
        """
        if not self._pairs:
            return None
        pairs = np.array(self._pairs, np.int64).reshape(-1, 2)
        copies = np.ones(documents, np.int64)
        copies[pairs[:, 0]] = pairs[:, 1]
        numbers = np.repeat(np.arange(documents), copies)
        copy = np.arange(numbers.size) - np.repeat(np.cumsum(copies) - copies, copies)
        place = (numbers + copy * documents / copies[numbers]) % documents
        return numbers[np.lexsort((copy, place))]

    def remove(self) -> None:
        """Nothing is to go on from."""
        self._path.unlink(missing_ok=True)
