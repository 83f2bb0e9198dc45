"""The documents of a corpus as batches of pieces, and their tokens."""

from array import array
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import accumulate, chain, pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from teleflm.data.domains import DomainNames
from teleflm.data.find import CorpusFile
from teleflm.data.going_on import Position
from teleflm.data.pieces import cut_pieces
from teleflm.data.sources import LeftOut, Reader
from teleflm.data.tokenizer import Tokenizer
from teleflm.errors import DataError

# Enough for all cores at a time, little enough for memory: a token costs about 100 bytes on its
# way through the tokenizers library, and a byte may be a token.
BATCH_BYTES = 1 << 19
_AT_WORK = 2
"""Batches that are with the tokenizer."""

START = Position(0, 0)


class Batch(NamedTuple):
    """Pieces as (domain, text, whether it ends its document, copies); where they end, and what the
    reader left out of the whole files before."""

    pieces: list[tuple[str, str, bool, int]]
    position: Position
    left_out: LeftOut


Encoded = tuple[Batch, list[npt.NDArray[np.integer]]]
"""A batch, and the tokens of each of its pieces."""


def batches_of(
    files: Sequence[CorpusFile],
    reader: Reader,
    names: DomainNames,
    start: Position = START,
    due: Callable[[], bool] = lambda: False,
) -> Iterator[Batch]:
    """The pieces of all documents from `start` on, about BATCH_BYTES at a time, and less at the end
    of a file where one is `due`."""
    pieces: list[tuple[str, str, bool, int]] = []
    size = 0
    for number in range(start.files, len(files)):
        left_out, done = reader.left_out, 0
        skipped = start.pieces if number == start.files else 0
        for document in reader.read(files[number]):
            names.admit([document.domain])
            rest = len(document.text)
            for text in cut_pieces(document.text):
                rest -= len(text)
                done += 1
                if done <= skipped:
                    continue
                pieces.append((document.domain, text, not rest, document.copies))
                size += len(text) if text.isascii() else len(text.encode())
                if size >= BATCH_BYTES:
                    yield Batch(pieces, Position(number, done), left_out)
                    pieces, size = [], 0
        if pieces and due():
            yield Batch(pieces, Position(number + 1, 0), reader.left_out)
            pieces, size = [], 0
    if pieces:
        yield Batch(pieces, Position(len(files), 0), reader.left_out)


def encoded(
    batches: Iterable[Batch], tokenizer: Tokenizer, dtype: npt.DTypeLike
) -> Generator[Encoded, None, None]:
    """Each batch with its tokens, while the next ones are already with the tokenizer.

    The tokenizer works on all cores, without Python's lock; only at the end it hands its tokens
    over with it, on one. So another batch is with it then, and reading and writing cost no time.
    """

    def rows(encoded: Future[list[list[int]]]) -> list[npt.NDArray[np.integer]]:
        # All in one array, as one for each document takes several times as long.
        found = encoded.result()
        tokens = np.frombuffer(array(np.dtype(dtype).char, chain.from_iterable(found)), dtype)
        ends = accumulate(map(len, found), initial=0)
        return [tokens[start:end] for start, end in pairwise(ends)]

    with ThreadPoolExecutor(_AT_WORK) as threads:
        ahead: deque[tuple[Batch, Future[list[list[int]]]]] = deque()
        fault: DataError | None = None
        try:
            for batch in batches:
                texts = [piece[1] for piece in batch.pieces]
                ahead.append((batch, threads.submit(tokenizer.encode_batch, texts)))
                if len(ahead) > _AT_WORK:
                    done, encoded = ahead.popleft()
                    yield done, rows(encoded)
        except DataError as error:
            fault = error  # what was read before it is not lost
        for done, encoded in ahead:
            yield done, rows(encoded)
        if fault is not None:
            raise fault
