"""What a task of `data prepare` leaves for the one who deals it: batches with their tokens.

A spill is a line of JSON, the marks of its files; then for each batch a line of JSON, its texts and
its tokens; and a last line with what was left out, and the error that ended it, if one did.
"""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from teleflm.data.batches import Batch, Encoded, batches_of, encoded
from teleflm.data.domains import DomainNames
from teleflm.data.find import CorpusFile
from teleflm.data.going_on import Position, mark
from teleflm.data.sources import LeftOut, Reader, Reading
from teleflm.data.tokenizer import Tokenizer
from teleflm.errors import DataError


def write_spill(
    path: Path,
    files: Sequence[CorpusFile],
    skipped: int,
    reading: Reading,
    tokenizer: Tokenizer,
    dtype: npt.DTypeLike,
) -> None:
    """Tokenize `files`, but for the first pieces of the first one that are `skipped`, into `path`.

    Nothing has the name before it is whole. What is wrong with the corpus is told in it, behind the
    documents before the fault.
    """
    aside = path.with_name(f"{path.name}.{os.getpid()}.partial")
    reader, fault = Reader(reading), None
    with aside.open("wb") as file:
        _write_line(file, [mark(one) for one in files])
        batches = batches_of(files, reader, DomainNames(), Position(0, skipped))
        try:
            for batch, rows in encoded(batches, tokenizer, dtype):
                _write_batch(file, batch, rows)
        except DataError as error:
            fault = str(error)
        _write_line(file, {"left_out": asdict(reader.left_out), "fault": fault})
    aside.replace(path)


def is_spill_of(path: Path, files: Sequence[CorpusFile]) -> bool:
    """Whether `path` is there, and made of these files as they are now, without a fault."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        if json.loads(file.readline()) != [mark(one) for one in files]:
            return False
        while "pieces" in (line := json.loads(file.readline())):
            file.seek(line["bytes"], os.SEEK_CUR)
    return line["fault"] is None


class Spill:
    """Reads a spill; what it says at its end is known once its batches have been read."""

    def __init__(self, path: Path, dtype: npt.DTypeLike) -> None:
        self._path, self._dtype = path, np.dtype(dtype)
        self.left_out = LeftOut()

    def batches(self) -> Iterator[Encoded]:
        """The batches with their tokens. Raises the DataError that ended it."""
        with self._path.open("rb") as file:
            file.readline()
            while "pieces" in (line := json.loads(file.readline())):
                yield self._batch(file, line)
        self.left_out = LeftOut(**line["left_out"])
        if line["fault"] is not None:
            raise DataError(line["fault"])

    def _batch(self, file: BinaryIO, line: dict[str, Any]) -> Encoded:
        texts = [file.read(size).decode() for size, *_ in line["pieces"]]
        counts = [count for _, count, *_ in line["pieces"]]
        tokens = np.frombuffer(file.read(sum(counts) * self._dtype.itemsize), self._dtype)
        ends = accumulate(counts, initial=0)
        pieces = [
            (domain, text, last, copies)
            for text, (_, _, domain, last, copies) in zip(texts, line["pieces"], strict=True)
        ]
        batch = Batch(pieces, Position(*line["position"]), LeftOut(**line["left_out"]))
        return batch, [tokens[start:end] for start, end in pairwise(ends)]


def _write_batch(file: BinaryIO, batch: Batch, rows: list[npt.NDArray[np.integer]]) -> None:
    texts = [text.encode() for _, text, *_ in batch.pieces]
    content = b"".join([*texts, *(row.tobytes() for row in rows)])
    pieces = [
        (len(text), len(row), domain, last, copies)
        for text, row, (domain, _, last, copies) in zip(texts, rows, batch.pieces, strict=True)
    ]
    line = {
        "pieces": pieces,
        "position": batch.position,
        "left_out": asdict(batch.left_out),
        "bytes": len(content),
    }
    _write_line(file, line)
    file.write(content)


def _write_line(file: BinaryIO, content: object) -> None:
    file.write(json.dumps(content).encode() + b"\n")
