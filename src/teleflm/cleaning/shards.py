"""Which files a task reads: a function of the sources alone, whatever the number of workers."""

import glob
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from teleflm.cleaning.recipe import Source
from teleflm.data.find import RAW_BODIES, Corpus, CorpusFile, find_corpus
from teleflm.errors import DataError


class Shard(NamedTuple):
    """Files of one source that one task reads."""

    source: Source
    root: Path
    """What documents without an `id` are named from."""
    files: tuple[CorpusFile, ...]

    @property
    def bytes(self) -> int:
        """On disk."""
        return sum(file.bytes for file in self.files)


class Sources(NamedTuple):
    """The shards in order, and a line for each path that holds more than what is read."""

    shards: list[Shard]
    left_out: list[str]

    @property
    def bytes(self) -> int:
        """On disk."""
        return sum(shard.bytes for shard in self.shards)


def find_shards(sources: Iterable[Source], shard_bytes: int) -> Sources:
    """The files of all sources, small ones together up to `shard_bytes`.

    Raises:
        DataError: a source that is missing, or holds nothing that can be read.
    """
    found = Sources([], [])
    for source in sources:
        for path in _paths(source):
            corpus = _corpus(source, path)
            root = path if path.is_dir() else path.parent
            found.left_out.extend(corpus.left_out)
            found.shards.extend(
                Shard(source, root, tuple(files)) for files in _grouped(corpus.files, shard_bytes)
            )
    return found


def _paths(source: Source) -> list[Path]:
    if Path(source.path).exists() or not glob.has_magic(source.path):
        return [Path(source.path)]
    paths = sorted(map(Path, glob.glob(source.path, recursive=True)))
    if not paths:
        raise DataError(f"source {source.name}: {source.path}: nothing there matches this")
    return paths


def _corpus(source: Source, path: Path) -> Corpus:
    try:
        return find_corpus([path], RAW_BODIES)
    except DataError as error:
        raise DataError(f"source {source.name}: {error}") from None


def _grouped(files: list[CorpusFile], limit: int) -> list[list[CorpusFile]]:
    groups: list[list[CorpusFile]] = []
    room = 0
    for file in files:
        if not groups or file.bytes > room:
            groups.append([])
            room = limit
        groups[-1].append(file)
        room -= file.bytes
    return groups
