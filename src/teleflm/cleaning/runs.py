"""Hashes of a corpus and where each stands, so that equal ones are found in bounded memory.

Each shard writes sorted runs. A task then takes one of equal parts of all 64-bit keys out of every
run, where they lie in a row: all that is equal comes together in one task, and no task reads what
belongs to another.
"""

import io
import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from teleflm.cleaning.units import Hashes
from teleflm.files import naming_full_disk, write_whole, written_aside

Places = npt.NDArray[np.unsignedinteger]

_RUN = 1 << 19
# Of the sources as they lie on the disk, which may be packed. Packed texts of a line each have the
# most documents a byte: a task has about 2,000,000 of their keys.
_TASK_BYTES = 8_000_000


def tasks_for(corpus_bytes: int) -> int:
    """How many tasks share the keys of a corpus."""
    return max(1, round(corpus_bytes / _TASK_BYTES))


class ShardFolder:
    """The folder of what a shard writes, which has its name once it is whole."""

    def __init__(self, folder: Path, shard: int) -> None:
        self._open = ExitStack()
        self.path = self._open.enter_context(written_aside(shard_folder(folder, shard)))

    def close(self) -> None:
        """Sync it and give it its name."""
        self._open.close()


def shard_folder(folder: Path, shard: int) -> Path:
    """Where a shard's files are."""
    return folder / f"shard-{shard:05d}"


class RunWriter:
    """Writes keys and places, in runs that are sorted by key."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._runs, self._held = folder, 0, 0
        self._keys: list[Hashes] = []
        self._places: list[Places] = []

    def add(self, keys: Hashes, places: Places) -> None:
        """Take `keys` and, for each of them, where in the shard it stands (of one type in all)."""
        self._keys.append(keys)
        self._places.append(places)
        self._held += len(keys)
        if self._held >= _RUN:
            self.close()

    def close(self) -> None:
        """Write what was not written yet."""
        if not self._held:
            return
        keys, places = np.concatenate(self._keys), np.concatenate(self._places)
        order = np.argsort(keys)
        with naming_full_disk(self._folder):
            np.save(self._folder / f"run-{self._runs:05d}.keys.npy", keys[order])
            np.save(self._folder / f"run-{self._runs:05d}.places.npy", places[order])
        self._keys, self._places, self._held = [], [], 0
        self._runs += 1


class Repeated(NamedTuple):
    """Keys that stand in more than one place, sorted by key, shard and place.

    `starts` is where each key's entries begin.
    """

    keys: Hashes
    shards: npt.NDArray[np.uint32]
    places: Places
    starts: npt.NDArray[np.int64]


def repeated(folder: Path, shards: int, task: int, tasks: int) -> Repeated:
    """The keys of `task`'s part of them that stand in more than one place of the corpus."""
    parts = [
        (keys, np.full(len(keys), shard, np.uint32), places)
        for shard in range(shards)
        for keys, places in _slices(shard_folder(folder, shard), task, tasks)
    ]
    if not parts:
        empty = np.empty(0, np.uint32)
        return Repeated(np.empty(0, np.uint64), empty, empty, np.empty(0, np.int64))
    keys, shard, places = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    del parts
    order = np.argsort(keys)
    same = keys[order][1:] == keys[order][:-1]
    chosen = order[np.append(False, same) | np.append(same, False)]
    keys, shard, places = keys[chosen], shard[chosen], places[chosen]
    order = np.lexsort((places, shard, keys))
    keys = keys[order]
    starts = np.flatnonzero(np.append(True, keys[1:] != keys[:-1])[: len(keys)])
    return Repeated(keys, shard[order], places[order], starts)


def _slices(folder: Path, task: int, tasks: int) -> Iterator[tuple[Hashes, Places]]:
    bounds = [(task << 64) // tasks, ((task + 1) << 64) // tasks - 1]
    for path in sorted(folder.glob("run-*.keys.npy")):
        keys = np.load(path, mmap_mode="r")
        first = int(np.searchsorted(keys, np.uint64(bounds[0]), side="left"))
        behind = int(np.searchsorted(keys, np.uint64(bounds[1]), side="right"))
        if first < behind:
            places = np.load(path.with_name(path.name.replace(".keys.", ".places.")), mmap_mode="r")
            yield np.array(keys[first:behind]), np.array(places[first:behind])


def write_array(path: Path, array: npt.NDArray[np.generic]) -> None:
    """Write an array so that `path` is all of it or not there."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, buffer.getvalue())


class IdWriter:
    """Writes the ids of a shard's documents, in order."""

    def __init__(self, folder: Path) -> None:
        self._file = (folder / _IDS).open("w", encoding="utf-8")

    def add(self, identity: str) -> None:
        """Take the next document's."""
        self._file.write(json.dumps(identity) + "\n")

    def close(self) -> None:
        """Write it all."""
        self._file.close()


_IDS = "ids.jsonl"


def read_ids(folder: Path, indices: set[int]) -> dict[int, str]:
    """The ids of those documents of a shard's `folder`."""
    with (folder / _IDS).open(encoding="utf-8") as file:
        return {index: json.loads(line) for index, line in enumerate(file) if index in indices}
