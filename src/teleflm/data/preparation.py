"""The work of `data prepare`: a corpus read, tokenized and dealt to the files of its domains."""

import shutil
from collections.abc import Generator
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from teleflm.data.batches import Batch, Encoded, batches_of, encoded
from teleflm.data.domains import HELD_OUT_SUFFIX, DomainNames
from teleflm.data.find import CorpusFile
from teleflm.data.going_on import Position, Saves
from teleflm.data.indexed import token_dtype
from teleflm.data.parts import DomainCounts, DomainWriter, Piece
from teleflm.data.sources import LeftOut, Reader, note
from teleflm.data.tokenizer import Tokenizer
from teleflm.data.workers import SPILLS, Workers
from teleflm.errors import DataError


class Preparation:
    """The work in one folder, which goes on from what `saves` has."""

    def __init__(
        self,
        folder: Path,
        files: list[CorpusFile],
        tokenizer: Tokenizer,
        share: float,
        saves: Saves,
        workers: Workers | None = None,
    ) -> None:
        self._folder, self._files, self._saves = folder, files, saves
        self._workers = workers
        self._tokenizer = tokenizer
        self._dtype = token_dtype(tokenizer.vocab_size)
        self._new_writer = partial(
            DomainWriter, folder, dtype=self._dtype, tokenizer=tokenizer, share=share
        )
        self._writers: dict[str, DomainWriter] = {}
        self.repeated = 0
        """Copies of documents beside the first ones, known after `run`."""

    def run(self, reader: Reader, names: DomainNames) -> dict[str, DomainCounts]:
        """Tokenize what is left to do, and finish the files. Raises what `prepare` does."""
        start = self._go_on(reader, names)
        try:
            # Closed at once where this fails, so that nobody is at work on the folder any more.
            with closing(self._encoded(reader, names, start)) as batches:
                for batch, tokens in batches:
                    self._deal(batch, tokens, names)
            reader.tell(len(self._files))
            domains = _close(self._writers, self._tokenizer)
            self.repeated = sum(writer.repeated for writer in self._writers.values())
            return domains
        except BaseException:
            for writer in self._writers.values():
                writer.leave()
            raise

    def _deal(
        self, batch: Batch, tokens: list[npt.NDArray[np.integer]], names: DomainNames
    ) -> None:
        for (domain, text, last, copies), row in zip(batch.pieces, tokens, strict=True):
            if domain not in self._writers:
                names.admit([domain])
                self._writers[domain] = self._new_writer(domain)
            self._writers[domain].add(Piece(text, row, last, copies))
        if self._saves.due:
            self._saves.save(batch.position, batch.left_out, self._writers)

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
        if self._workers is None:
            shutil.rmtree(self._folder / SPILLS, ignore_errors=True)

    def _encoded(
        self, reader: Reader, names: DomainNames, start: Position
    ) -> Generator[Encoded, None, None]:
        if self._workers is not None:
            return self._workers.batches(start, reader)
        batches = batches_of(self._files, reader, names, start, lambda: self._saves.due)
        return encoded(batches, self._tokenizer, self._dtype)


def _close(writers: dict[str, DomainWriter], tokenizer: Tokenizer) -> dict[str, DomainCounts]:
    """The counts of the domains that are large enough to be divided."""
    whole, small = {}, []
    for domain, writer in sorted(writers.items()):
        if writer.close(tokenizer.encode):
            whole[domain] = writer.counts
        else:
            small.append(domain)
    if not writers:
        raise DataError("every document has the weight 0, so there is nothing to train on")
    if not whole:
        raise DataError(
            f"domain {small[0]!r} is a single character, so nothing can be held out for "
            "evaluation; give it more text"
        )
    if small:
        note(f"left out, as a single character cannot be divided: {', '.join(small)}")
    return whole
