"""The step `minhash`: near-duplicates, within and across the sources of a language.

Each text's n-grams of units (see `units`) get a MinHash signature. Texts that agree in all rows of
one of its bands are candidates, and a candidate is a duplicate where the similarity that the whole
signature shows reaches the threshold: an estimate of the Jaccard similarity J with the standard
deviation sqrt(J (1 - J) / hashes). At the defaults (25 bands of 5 rows, 0.72) a pair of J = 0.8 is
found in 98.8 of 100 cases, one of 0.9 in all, one of 0.6 in 0.4.

Duplicates of duplicates are one cluster, of which the first document stays. A text of fewer units
than an n-gram is one n-gram, so it has only equal ones for duplicates; one without units has none.
"""

from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from datatrove.data import Document
from pydantic import Field

from teleflm.cleaning.clusters import (
    SHARD_BITS,
    Numbers,
    Verdict,
    join,
    largest_clusters,
    write_verdicts,
)
from teleflm.cleaning.runs import (
    IdWriter,
    Repeated,
    RunWriter,
    ShardFolder,
    repeated,
    shard_folder,
    tasks_for,
    write_array,
)
from teleflm.cleaning.signatures import Bytes, band_keys, signatures, similarity, to_bytes
from teleflm.cleaning.step import CorpusStep, Judge, Round, Signer
from teleflm.cleaning.units import Places, name_hashes
from teleflm.config.base import Strict
from teleflm.files import naming_full_disk

# Characters signed at once.
_BATCH = 1 << 17
# Signatures held, and read at once, to compare candidates.
_CANDIDATES = 1 << 18
_READ = 1 << 14
# In a band that texts share which are no duplicates, as many are compared with all behind them: so
# a band costs no more than linear time. What one band misses, another finds.
_LEADERS = 32


class MinHashSettings(Strict):
    """What counts as a duplicate, and how surely it is found."""

    ngram: int = Field(default=5, ge=1)
    """Units of a shingle."""
    threshold: float = Field(default=0.72, gt=0, le=1)
    """The estimated Jaccard similarity from which on two documents are duplicates."""
    bands: int = Field(default=25, ge=1)
    """More of them, or fewer rows, find less similar candidates: J^rows each."""
    rows: int = Field(default=5, ge=1)


class MinHash(CorpusStep):
    """Drops near-duplicates of documents that come before, of the same language."""

    name = "minhash"
    Settings: ClassVar[type[Strict]] = MinHashSettings

    def __init__(self, settings: Strict) -> None:
        assert isinstance(settings, MinHashSettings)
        self._settings = settings

    def signer(self, folder: Path, shard: int) -> Signer:
        return _Signer(folder, shard, self._settings)

    def rounds(self, folder: Path, shards: int, corpus_bytes: int) -> list[Round]:
        tasks = tasks_for(corpus_bytes)
        pairs = partial(find_pairs, folder, shards, tasks, self._settings)
        return [
            Round("pairs", tasks, pairs),
            Round("clusters", 1, partial(_find_clusters, folder, shards, tasks)),
        ]

    def judge(self, folder: Path, shard: int) -> Judge:
        return _Judge(folder, shard)

    def clusters(self, folder: Path) -> list[dict[str, Any]]:
        """As `CorpusStep.clusters`."""
        return largest_clusters(folder)


class _Signer:
    """Writes the signatures, band keys and ids of a shard's documents."""

    def __init__(self, folder: Path, shard: int, settings: MinHashSettings) -> None:
        self._settings, self._folder = settings, ShardFolder(folder, shard)
        self._runs, self._ids = RunWriter(self._folder.path), IdWriter(self._folder.path)
        self._signatures = (self._folder.path / _SIGNATURES).open("wb")
        self._signed, self._characters = 0, 0
        self._texts: list[str] = []
        self._languages: list[str] = []

    def add(self, document: Document) -> None:
        self._texts.append(document.text)
        self._languages.append(document.metadata["language"])
        # A text without characters takes room too.
        self._characters += len(document.text) + 1
        with naming_full_disk(self._folder.path):
            self._ids.add(document.id)
            if self._characters >= _BATCH:
                self._sign()

    def _sign(self) -> None:
        settings = self._settings
        hashes = settings.bands * settings.rows
        signature, which = signatures(self._texts, settings.ngram, hashes)
        rows = np.zeros((len(self._texts), hashes), np.uint8)
        rows[which] = to_bytes(signature)
        self._signatures.write(rows.tobytes())
        languages = name_hashes(self._languages)[which]
        keys = band_keys(signature, settings.bands, languages[:, None])
        places = np.repeat((self._signed + which).astype(np.uint32), settings.bands)
        self._runs.add(keys.ravel(), places)
        self._signed += len(self._texts)
        self._texts, self._languages, self._characters = [], [], 0

    def close(self) -> None:
        with naming_full_disk(self._folder.path):
            if self._texts:
                self._sign()
            for file in (self._runs, self._ids, self._signatures):
                file.close()
        self._folder.close()


def find_pairs(folder: Path, shards: int, tasks: int, settings: MinHashSettings, task: int) -> None:
    """Compare the candidates of a task's part of the band keys, and write which are duplicates."""
    found = repeated(folder, shards, task, tasks)
    numbers = found.shards.astype(np.int64) << SHARD_BITS | found.places
    pairs = [np.empty((0, 2), np.int64)]
    for entries, groups in _pieces(found):
        documents, rows = np.unique(numbers[entries], return_inverse=True)
        signed = _read_signatures(folder, documents, settings.bands * settings.rows)
        pairs.append(documents[_follow_leaders(signed, rows, groups, settings.threshold)])
    write_array(_pairs(folder, task), np.unique(np.concatenate(pairs), axis=0))


def _pieces(found: Repeated) -> Iterator[tuple[Places, Places]]:
    """Entries, and the number of the key of each, of about `_CANDIDATES` at a time.

    Of a key with more, the first entry is there in each piece.
    """
    bounds = np.append(found.starts, len(found.keys))
    group = 0
    while group < len(found.starts):
        first = int(bounds[group])
        behind = int(np.searchsorted(bounds, first + _CANDIDATES, side="right")) - 1
        if behind > group:
            sizes = np.diff(bounds[group : behind + 1])
            yield np.arange(first, bounds[behind]), np.repeat(np.arange(len(sizes)), sizes)
            group = behind
            continue
        for at in range(first + 1, int(bounds[group + 1]), _CANDIDATES):
            some = np.arange(at, min(at + _CANDIDATES, int(bounds[group + 1])))
            yield np.append(first, some), np.zeros(len(some) + 1, np.int64)
        group += 1


def _read_signatures(folder: Path, documents: Numbers, hashes: int) -> Bytes:
    """The signatures of `documents`, which rise; shape (documents, hashes)."""
    rows = np.empty((len(documents), hashes), np.uint8)
    shards, places = documents >> SHARD_BITS, documents & ((1 << SHARD_BITS) - 1)
    for shard in np.unique(shards):
        first, behind = np.searchsorted(shards, [shard, shard + 1])
        path = shard_folder(folder, int(shard)) / _SIGNATURES
        for at in range(first, behind, _READ):
            # Mapped anew, so that no more of the file is held than was read last.
            mapped = np.memmap(path, np.uint8, "r").reshape(-1, hashes)
            some = slice(at, min(at + _READ, behind))
            rows[some] = mapped[places[some]]
    return rows


def _follow_leaders(signed: Bytes, rows: Places, groups: Places, threshold: float) -> Places:
    """The first of each group is compared with all behind it, then the first of those that are no
    duplicates of it, and so on. Returns pairs of rows, shape (pairs, 2)."""
    pairs = [np.empty((0, 2), np.int64)]
    left = np.arange(len(rows))
    for _ in range(_LEADERS):
        group = groups[left]
        first = np.flatnonzero(np.append(True, group[1:] != group[:-1])[: len(group)])
        leaders = np.repeat(left[first], np.diff(np.append(first, len(left))))
        behind = leaders != left
        leaders, left = leaders[behind], left[behind]
        if not len(left):
            break
        near = similarity(signed, rows[leaders], rows[left]) >= threshold
        pairs.append(np.stack([rows[leaders[near]], rows[left[near]]], axis=1))
        left = left[~near]
    return np.concatenate(pairs)


def _find_clusters(folder: Path, shards: int, tasks: int, task: int) -> None:
    """All in one task: it holds what is a duplicate, and no more of the corpus."""
    dropped = join(np.load(_pairs(folder, part)) for part in range(tasks))
    write_verdicts(folder, shards, dropped)


class _Judge:
    """Drops what the clusters say, and names what stands for it."""

    def __init__(self, folder: Path, shard: int) -> None:
        self.details: Counter[str] = Counter()
        self._verdict = Verdict(folder, shard)

    def __call__(self, document: Document) -> str | None:
        kept = self._verdict.next(document.text)
        if kept is None:
            return None
        document.metadata["duplicate_of"] = kept
        return "near-duplicate"


_SIGNATURES = "signatures.bin"


def _pairs(folder: Path, task: int) -> Path:
    return folder / f"pairs-{task:05d}.npy"
