"""The work of `data prepare`: a corpus read, tokenized and dealt to the files of its domains."""

from array import array
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import accumulate, chain, pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from teleflm.data.domains import HELD_OUT_SUFFIX, DomainNames
from teleflm.data.find import CorpusFile
from teleflm.data.going_on import Position, Saves
from teleflm.data.indexed import token_dtype
from teleflm.data.parts import DomainCounts, DomainWriter, Piece
from teleflm.data.pieces import cut_pieces
from teleflm.data.sources import LeftOut, Reader, note
from teleflm.data.tokenizer import Tokenizer
from teleflm.errors import DataError

# Enough for all cores at a time, little enough for memory: a token costs about 100 bytes on its
# way through the tokenizers library, and a byte may be a token.
BATCH_BYTES = 1 << 19
_AT_WORK = 2
"""Batches that are with the tokenizer."""


class Batch(NamedTuple):
    """Pieces as (domain, text, whether it ends its document); where they end, and what the reader
    left out of the whole files before."""

    pieces: list[tuple[str, str, bool]]
    position: Position
    left_out: LeftOut


class Preparation:
    """The work in one folder, which goes on from what `saves` has."""

    def __init__(
        self,
        folder: Path,
        files: list[CorpusFile],
        tokenizer: Tokenizer,
        share: float,
        saves: Saves,
    ) -> None:
        self._folder, self._files, self._saves = folder, files, saves
        self._tokenizer = tokenizer
        self._dtype = token_dtype(tokenizer.vocab_size)
        self._new_writer = partial(
            DomainWriter, folder, dtype=self._dtype, tokenizer=tokenizer, share=share
        )
        self._writers: dict[str, DomainWriter] = {}

    def run(self, reader: Reader, names: DomainNames) -> dict[str, DomainCounts]:
        """Tokenize what is left to do, and finish the files. Raises what `prepare` does."""
        start = self._go_on(reader, names)
        try:
            batches = self._batches(reader, names, start)
            for batch, tokens in _encoded(batches, self._tokenizer, self._dtype):
                for (domain, text, last), row in zip(batch.pieces, tokens, strict=True):
                    if domain not in self._writers:
                        self._writers[domain] = self._new_writer(domain)
                    self._writers[domain].add(Piece(text, row, last))
                if self._saves.due:
                    self._saves.save(batch.position, batch.left_out, self._writers)
            reader.tell(len(self._files))
            return _close(self._writers, self._tokenizer)
        except BaseException:
            for writer in self._writers.values():
                writer.leave()
            raise

    def _go_on(self, reader: Reader, names: DomainNames) -> Position:
        position, state = Position(0, 0), self._saves.newest()
        try:
            for domain, saved in (state or {"domains": {}})["domains"].items():
                self._writers[domain] = self._new_writer(domain, saved=saved)
        except DataError:
            for writer in self._writers.values():
                writer.leave()
            self._writers, state = {}, None
        self._clear()
        if state is not None:
            position = Position(*state["position"])
            names.admit(self._writers)
            reader.go_on(LeftOut(**state["left_out"]), self._files[: position.files])
            note(f"going on after {position.files} of {len(self._files)} files")
        return position

    def _clear(self) -> None:
        """Remove what is left of domains that were begun after the state was saved."""
        for path in self._folder.iterdir():
            domain = path.name.removesuffix(".partial").rpartition(".")[0]
            ours = path.name.startswith(".") or path == self._saves.path
            if not ours and domain.removesuffix(HELD_OUT_SUFFIX) not in self._writers:
                path.unlink()

    def _batches(self, reader: Reader, names: DomainNames, start: Position) -> Iterator[Batch]:
        """The pieces of all documents from `start` on, about BATCH_BYTES at a time."""
        pieces: list[tuple[str, str, bool]] = []
        size = 0
        for number in range(start.files, len(self._files)):
            left_out, done = reader.left_out, 0
            skipped = start.pieces if number == start.files else 0
            for document in reader.read(self._files[number]):
                names.admit([document.domain])
                rest = len(document.text)
                for text in cut_pieces(document.text):
                    rest -= len(text)
                    done += 1
                    if done <= skipped:
                        continue
                    pieces.append((document.domain, text, not rest))
                    size += len(text) if text.isascii() else len(text.encode())
                    if size >= BATCH_BYTES:
                        yield Batch(pieces, Position(number, done), left_out)
                        pieces, size = [], 0
            if pieces and self._saves.due:
                yield Batch(pieces, Position(number + 1, 0), reader.left_out)
                pieces, size = [], 0
        if pieces:
            yield Batch(pieces, Position(len(self._files), 0), reader.left_out)


def _close(writers: dict[str, DomainWriter], tokenizer: Tokenizer) -> dict[str, DomainCounts]:
    """The counts of the domains that are large enough to be divided."""
    whole, small = {}, []
    for domain, writer in sorted(writers.items()):
        if writer.close(tokenizer.encode):
            whole[domain] = writer.counts
        else:
            small.append(domain)
    if not whole:
        raise DataError(
            f"domain {small[0]!r} is a single character, so nothing can be held out for "
            "evaluation; give it more text"
        )
    if small:
        note(f"left out, as a single character cannot be divided: {', '.join(small)}")
    return whole


def _encoded(
    batches: Iterable[Batch], tokenizer: Tokenizer, dtype: npt.DTypeLike
) -> Iterator[tuple[Batch, list[npt.NDArray[np.integer]]]]:
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
                texts = [text for _, text, _ in batch.pieces]
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
