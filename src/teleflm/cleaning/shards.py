"""Which files a task reads: a function of the sources alone, whatever the number of workers."""

import glob
import itertools
from collections import Counter
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
    read_by: dict[tuple[int, int], str] = {}
    for source in sources:
        corpora = [_corpus(source, path) for path in paths_of(source)]
        found.left_out.extend(line for corpus in corpora for line in corpus.left_out)
        files, lines = _once(source, corpora, read_by)
        found.left_out.extend(lines)
        found.shards.extend(
            Shard(source, _root(source), tuple(some)) for some in _grouped(files, shard_bytes)
        )
    return found


def _once(
    source: Source, corpora: list[Corpus], read_by: dict[tuple[int, int], str]
) -> tuple[list[CorpusFile], list[str]]:
    """The files of a source, each once, and a line on what other sources read too.

    A glob may match a folder and what is in it, and two names may be one file. Two sources may
    share files on purpose, as duplicates are dropped: both read them.
    """
    files: dict[tuple[int, int], CorpusFile] = {}
    for file in (file for corpus in corpora for file in corpus.files):
        status = file.path.stat()
        files.setdefault((status.st_dev, status.st_ino), file)
    shared = Counter(read_by[place] for place in files if place in read_by)
    for place in files:
        read_by.setdefault(place, source.name)
    lines = [
        f"source {source.name}: {count} of its {len(files)} files are read for source {other} too"
        for other, count in shared.items()
    ]
    return list(files.values()), lines


def _root(source: Source) -> Path:
    """What all files of a source lie below."""
    path = Path(source.path)
    if path.exists():
        return path if path.is_dir() else path.parent
    return Path(*itertools.takewhile(lambda part: not glob.has_magic(part), path.parts))


def paths_of(source: Source) -> list[Path]:
    """What the path of a source stands for.

    Raises:
        DataError: nothing matches it.
    """
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
