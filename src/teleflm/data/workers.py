"""`data prepare` by many processes: each tokenizes groups of files, one pass deals them in order.

So the store does not depend on how many there are. A group that is done is kept until it is dealt,
also where the command is stopped in between.
"""

import os
import shutil
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple

import numpy.typing as npt

from teleflm.data.batches import Encoded
from teleflm.data.find import CorpusFile
from teleflm.data.going_on import Position
from teleflm.data.processes import worker_pool
from teleflm.data.sources import Reader, Reading
from teleflm.data.spill import Spill, is_spill_of, write_spill
from teleflm.data.tokenizer import Tokenizer
from teleflm.errors import MachineError

# A group ends with the file that brings it to either.
GROUP_BYTES = 16 << 20
GROUP_FILES = 1000
# Groups that are under way or wait to be dealt, for each worker: what bounds the disk they take.
_AHEAD = 2


SPILLS = ".spills"
"""Where groups lie, in the folder of a store that is being made."""


class Group(NamedTuple):
    """Files `first` … `end - 1` of a corpus, but for `skipped` pieces of the first."""

    first: int
    end: int
    skipped: int

    @property
    def name(self) -> str:
        """Of its spill."""
        return "-".join(map(str, self))


def groups_of(files: Sequence[CorpusFile], start: Position) -> list[Group]:
    """The files from `start` on; where a group ends does not depend on it."""
    groups, first, size = [], 0, 0
    for number, file in enumerate(files, start=1):
        size += file.bytes
        if size >= GROUP_BYTES or number - first >= GROUP_FILES or number == len(files):
            if number > start.files:
                begin = max(first, start.files)
                groups.append(Group(begin, number, start.pieces if begin == start.files else 0))
            first, size = number, 0
    return groups


def any_done(spills: Path) -> bool:
    """Whether groups that are done wait in that folder to be dealt."""
    return any(path.suffix != ".partial" for path in spills.glob("*"))


class Workers:
    """`count` processes that write their groups into the folder `spills`.

    What lies there already is taken as it is. A group goes when it has been dealt, so that the disk
    need not hold them all, unless they are `kept`.
    """

    def __init__(
        self,
        count: int,
        spills: Path,
        files: Sequence[CorpusFile],
        reading: Reading,
        tokenizer_dir: Path,
        dtype: npt.DTypeLike,
        *,
        kept: bool = False,
    ) -> None:
        self._kept = kept
        self._count, self._folder, self._files = count, spills, files
        self._reading, self._tokenizer_dir, self._dtype = reading, tokenizer_dir, dtype

    def batches(self, start: Position, reader: Reader) -> Generator[Encoded, None, None]:
        """All batches from `start` on in order, with their tokens; `reader` is told of the files.

        Raises DataError for what is wrong with the corpus, where the documents before it have been
        given, and MachineError for a worker that died.
        """
        self._folder.mkdir(exist_ok=True)
        threads = max((os.cpu_count() or 1) // self._count, 1)
        try:
            with worker_pool(self._count, _begin, self._tokenizer_dir, threads) as pool:
                yield from self._dealt(pool, groups_of(self._files, start), reader)
        except BrokenProcessPool:
            raise MachineError(
                "a worker of data prepare died (killed, or out of memory); the same command goes "
                "on, and --workers 1 needs the least memory"
            ) from None
        if not self._kept:
            shutil.rmtree(self._folder)

    def _dealt(
        self, pool: ProcessPoolExecutor, groups: list[Group], reader: Reader
    ) -> Iterator[Encoded]:
        ahead: deque[tuple[Group, Path, Future[None] | None]] = deque()
        left = iter(groups)
        while True:
            while len(ahead) < _AHEAD * self._count and (group := next(left, None)):
                path = self._folder / group.name
                ahead.append((group, path, self._submit(pool, group, path)))
            if not ahead:
                return
            group, path, future = ahead.popleft()
            if future is not None:
                future.result()
            yield from self._group(group, path, reader)

    def _submit(self, pool: ProcessPoolExecutor, group: Group, path: Path) -> "Future[None] | None":
        files = self._files[group.first : group.end]
        if is_spill_of(path, files):
            return None
        return pool.submit(_task, path, files, group.skipped, self._reading, self._dtype)

    def _group(self, group: Group, path: Path, reader: Reader) -> Iterator[Encoded]:
        before, spill = reader.left_out, Spill(path, self._dtype)
        for batch, rows in spill.batches():
            files, pieces = batch.position
            # What ends with the group ends with its last file.
            position = Position(group.first + files, pieces)
            left_out = before.plus(batch.left_out)
            yield batch._replace(position=position, left_out=left_out), rows
        reader.go_on(before.plus(spill.left_out), self._files[group.first : group.end])
        if not self._kept:
            path.unlink()


# In a worker: the tokenizer, loaded once.
_loaded: list[Tokenizer] = []


def _begin(tokenizer_dir: Path, threads: int) -> None:
    """What a worker does first."""
    os.environ["RAYON_NUM_THREADS"] = str(threads)  # read at the library's first batch
    _loaded[:] = [Tokenizer.load(tokenizer_dir)]


def _task(
    path: Path, files: Sequence[CorpusFile], skipped: int, reading: Reading, dtype: npt.DTypeLike
) -> None:
    write_spill(path, files, skipped, reading, _loaded[0], dtype)
