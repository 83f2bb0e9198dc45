"""Pairs of duplicates → clusters → which documents go, and for which one."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from teleflm.cleaning.runs import read_ids, shard_folder
from teleflm.files import write_whole

Numbers = npt.NDArray[np.int64]
"""Documents of a corpus: the shard in the upper 32 bits, the place in it in the lower."""

SHARD_BITS = 32
_PLACE = (1 << SHARD_BITS) - 1
_LARGEST = 20
_IDS_NAMED = 10
_SAMPLE = 200
# Pairs that are joined at a time.
_PAIRS = 1 << 20


class Dropped(NamedTuple):
    """Documents that go, in rising order, and for each the first of its cluster, which stays."""

    documents: Numbers
    kept: Numbers


def join(parts: Iterable[Numbers]) -> Dropped:
    """The connected parts of the graph whose edges are the rows of `parts`, shape (pairs, 2)."""
    forest, held = [np.empty((0, 2), np.int64)], 0
    for part in parts:
        forest.append(part)
        held += len(part)
        if held > _PAIRS:
            forest, held = [_forest(np.concatenate(forest))], 0
    documents, kept = _forest(np.concatenate(forest)).T
    return Dropped(documents, kept)


def _forest(pairs: Numbers) -> Numbers:
    """A pair of each document and the first of its cluster, but of those themselves."""
    documents, ends = np.unique(pairs, return_inverse=True)
    ends = ends.reshape(-1, 2)
    root = np.arange(len(documents))
    while True:
        ends = root[ends]
        ends = ends[ends[:, 0] != ends[:, 1]]
        if not len(ends):
            break
        # The larger of two roots hangs on the smaller one, so there is no circle.
        np.minimum.at(root, ends.max(axis=1), ends.min(axis=1))
        while (above := root[root]).tobytes() != root.tobytes():
            root = above
    moved = root != np.arange(len(root))
    return np.stack([documents[moved], documents[root[moved]]], axis=1)


def write_verdicts(folder: Path, shards: int, dropped: Dropped) -> None:
    """Write for each shard which documents go, and a summary of the largest clusters."""
    firsts, sizes = np.unique(dropped.kept, return_counts=True)
    ids = _read_ids(folder, firsts)
    of_shard = np.searchsorted(dropped.documents, np.arange(shards + 1) << SHARD_BITS)
    for shard in range(shards):
        some = slice(of_shard[shard], of_shard[shard + 1])
        places = (dropped.documents[some] & _PLACE).tolist()
        kept = dropped.kept[some].tolist()
        lines = (f"[{p}, {json.dumps(ids[k])}]\n" for p, k in zip(places, kept, strict=True))
        write_whole(_verdict(folder, shard), "".join(lines))
    largest = np.lexsort((firsts, -sizes))[:_LARGEST]
    clusters = []
    for first, size in zip(firsts[largest].tolist(), sizes[largest].tolist(), strict=True):
        others = dropped.documents[dropped.kept == first][: _IDS_NAMED - 1]
        named = _read_ids(folder, np.append(first, others))
        clusters.append(
            {
                "size": size + 1,
                "ids": list(named.values()),
                "shard": first >> SHARD_BITS,
                "place": first & _PLACE,
            }
        )
    write_whole(folder / _SUMMARY, json.dumps(clusters))


def _read_ids(folder: Path, numbers: Numbers) -> dict[int, str]:
    """The ids of the documents `numbers`, which rise, by number."""
    ids: dict[int, str] = {}
    for shard in np.unique(numbers >> SHARD_BITS).tolist():
        places = (numbers[numbers >> SHARD_BITS == shard] & _PLACE).tolist()
        found = read_ids(shard_folder(folder, shard), set(places))
        ids |= {shard << SHARD_BITS | place: found[place] for place in places}
    return ids


class Verdict:
    """What becomes of the documents of a shard, one after the other."""

    def __init__(self, folder: Path, shard: int) -> None:
        self._folder, self._place = folder, -1
        self._lines = _verdict(folder, shard).open(encoding="utf-8")
        self._next = self._read()
        clusters = json.loads((folder / _SUMMARY).read_text(encoding="utf-8"))
        self._sampled = {c["place"]: n for n, c in enumerate(clusters) if c["shard"] == shard}

    def _read(self) -> tuple[int, str] | None:
        line = self._lines.readline()
        return tuple(json.loads(line)) if line else None

    def next(self, text: str) -> str | None:
        """The id of the document that stands for the next one, `text`; None where it stays."""
        self._place += 1
        if (number := self._sampled.get(self._place)) is not None:
            write_whole(_sample(self._folder, number), text[:_SAMPLE])
        if self._next is None or self._next[0] != self._place:
            return None
        _, kept = self._next
        self._next = self._read()
        return kept


def largest_clusters(folder: Path) -> list[dict[str, Any]]:
    """The largest clusters of a step's `folder`, once its documents are judged.

    Each has a `size`, some `ids`, of which the first is the one that was kept, and the beginning of
    its `text`.
    """
    clusters = json.loads((folder / _SUMMARY).read_text(encoding="utf-8"))
    return [
        {
            "size": cluster["size"],
            "ids": cluster["ids"],
            "text": _sample(folder, number).read_text(encoding="utf-8"),
        }
        for number, cluster in enumerate(clusters)
    ]


_SUMMARY = "clusters.json"


def _verdict(folder: Path, shard: int) -> Path:
    return folder / f"verdict-{shard:05d}.jsonl"


def _sample(folder: Path, number: int) -> Path:
    return folder / f"cluster-{number:02d}.txt"
