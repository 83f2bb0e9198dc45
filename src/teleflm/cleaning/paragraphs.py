"""The step `paragraphs`: what stood before in the corpus goes, word for word, by language.

A paragraph is a run of lines between blank ones, and so is a single line that is as long. One of
`units` units or more (see `units`) is removed where it stood earlier, in another document or in the
same one. Line breaks, case and punctuation make no difference.

Shorter lines are what pages repeat (menus, notices, links), but also what text repeats by right
(refrains, titles, braces, "Yes."). So one of `line_units` units or more is removed only where it
stands in `line_documents` documents or more, and then in all but the first; shorter ones stay. In
the King James Bible 71 chapters say "And the LORD spake unto Moses, saying,", and all 121 pages of
a handbook say its title: hence the default. Books and poems, which have refrains and share titles,
are better off with `line_documents: null`. Code repeats itself line by line and is no better for a
hole: documents of the language `code` are left as they are.
"""

from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
from datatrove.data import Document
from pydantic import Field

from teleflm.cleaning.runs import RunWriter, ShardFolder, repeated, tasks_for, write_array
from teleflm.cleaning.step import CorpusStep, Judge, Round, Signer
from teleflm.cleaning.units import Hashes, Places, mix, name_hashes, span_hashes, unit_hashes
from teleflm.config.base import Strict
from teleflm.files import naming_full_disk

_CODE = "code"
# Characters hashed at once.
_BATCH = 1 << 17
# A place: the document in its shard, then the line, then whether a paragraph begins there.
_DOCUMENT = np.uint64(32)
_WHOLE = np.uint64(1)
# The last bit of a key: whether it needs many documents.
_SHORT = np.uint64(1)


class ParagraphSettings(Strict):
    """What may stand once only."""

    units: int = Field(default=20, ge=1)
    """A paragraph or line of as many units is removed wherever it stood before."""
    line_units: int = Field(default=4, ge=1)
    """A line of fewer units than `units`, and at least these, is removed …"""
    line_documents: int | None = Field(default=100, ge=2)
    """… where it stands in as many documents, but for the first; null leaves such lines alone."""
    left_units: int = Field(default=20, ge=0)
    """A document that keeps fewer units than these, and fewer than were removed, is dropped."""


class Paragraphs(CorpusStep):
    """Removes paragraphs and lines that stood before, and documents of which too little is left."""

    name = "paragraphs"
    Settings: ClassVar[type[Strict]] = ParagraphSettings

    def __init__(self, settings: Strict) -> None:
        assert isinstance(settings, ParagraphSettings)
        self._settings = settings

    def signer(self, folder: Path, shard: int) -> Signer:
        return _Signer(folder, shard, self._settings)

    def rounds(self, folder: Path, shards: int, corpus_bytes: int) -> list[Round]:
        tasks = tasks_for(corpus_bytes)
        work = partial(find_repeated, folder, shards, tasks, self._settings.line_documents or 0)
        return [Round("repeated", tasks, work)]

    def judge(self, folder: Path, shard: int) -> Judge:
        return _Judge(folder, shard, self._settings)


class _Part(NamedTuple):
    """Lines `first` … `behind - 1` of a text, and whether they are a whole paragraph."""

    first: int
    behind: int
    whole: bool


def _parts(lines: list[str]) -> Iterator[_Part]:
    """The paragraphs of a text, and the single lines of those that have more than one."""
    first = 0
    for number, line in enumerate([*lines, ""]):
        if line and not line.isspace():
            continue
        if number > first:
            yield _Part(first, number, True)
        if number > first + 1:
            yield from (_Part(at, at + 1, False) for at in range(first, number))
        first = number + 1


class _Signer:
    """Writes the hashes of a shard's paragraphs and lines."""

    def __init__(self, folder: Path, shard: int, settings: ParagraphSettings) -> None:
        self._settings, self._folder = settings, ShardFolder(folder, shard)
        self._runs = RunWriter(self._folder.path)
        self._documents, self._characters = 0, 0
        self._texts: list[str] = []
        self._languages: list[str] = []

    def add(self, document: Document) -> None:
        language = document.metadata["language"]
        self._texts.append("" if language == _CODE else document.text)
        self._languages.append(language)
        # A text without characters takes room too.
        self._characters += len(document.text) + 1
        if self._characters >= _BATCH:
            self._sign()

    def _sign(self) -> None:
        lines: list[str] = []
        places: list[int] = []
        spans: list[tuple[int, int, int]] = []
        for number, text in enumerate(self._texts):
            own = text.split("\n")
            for part in _parts(own):
                spans.append((len(lines) + part.first, len(lines) + part.behind, number))
                places.append((self._documents + number) << 32 | part.first << 1 | part.whole)
            lines += own
        at = np.array(places, np.uint64)
        whole = (at & _WHOLE).astype(np.bool_)
        keys, chosen = self._keys(lines, np.array(spans, np.int64).reshape(-1, 3), whole)
        self._runs.add(keys, at[chosen])
        self._documents += len(self._texts)
        self._texts, self._languages, self._characters = [], [], 0

    def _keys(
        self, lines: list[str], spans: Places, whole: npt.NDArray[np.bool_]
    ) -> tuple[Hashes, Places]:
        """A key of each span of lines that is long enough, and which those are.

        `spans`, shape (spans, 3), are first line, line behind the last and document; `whole` says
        which are paragraphs. Of a paragraph that has lines of its own, they follow it.
        """
        settings = self._settings
        hashes, starts = unit_hashes(lines)
        begins, ends = starts[spans[:, 0]], starts[spans[:, 1]]
        sizes = ends - begins
        many = spans[:, 1] - spans[:, 0] > 1
        lines_alone = settings.line_documents is None
        least = settings.units if lines_alone else min(settings.line_units, settings.units)
        enough = sizes >= np.where(many, settings.units, least)
        # A line that is all there is to its paragraph, beside a rule say, would stand there twice.
        paragraph = np.maximum.accumulate(np.where(whole, np.arange(len(whole)), 0))
        all_of_it = (begins == begins[paragraph]) & (ends == ends[paragraph]) & ~whole
        chosen = np.flatnonzero(enough & ~all_of_it)
        keys = np.empty(len(chosen), np.uint64)
        # Paragraphs and lines by themselves, so that neither begins nor ends fall.
        for kind in (many[chosen], ~many[chosen]):
            some = chosen[kind]
            keys[kind] = span_hashes(hashes, begins[some], ends[some])
        languages = name_hashes(self._languages)[spans[chosen, 2]]
        return to_keys(keys, languages, sizes[chosen] < settings.units), chosen

    def close(self) -> None:
        with naming_full_disk(self._folder.path):
            if self._texts:
                self._sign()
            self._runs.close()
        self._folder.close()


def to_keys(hashes: Hashes, languages: Hashes, short: npt.NDArray[np.bool_]) -> Hashes:
    """Keys whose last bit says whether many documents are needed."""
    return mix(hashes ^ languages) & ~_SHORT | short


def find_repeated(folder: Path, shards: int, tasks: int, line_documents: int, task: int) -> None:
    """Write what is to be removed of a task's part of the keys: shards and places, shape (2, n)."""
    found = repeated(folder, shards, task, tasks)
    sizes = np.diff(np.append(found.starts, len(found.keys)))
    first = np.zeros(len(found.keys), np.bool_)
    first[found.starts] = True
    documents = found.places.astype(np.uint64) >> _DOCUMENT
    other = first.copy()
    other[1:] |= (documents[1:] != documents[:-1]) | (found.shards[1:] != found.shards[:-1])
    counts = np.add.reduceat(other.astype(np.int64), found.starts) if len(sizes) else sizes
    spared = (found.keys & _SHORT).astype(np.bool_) & (np.repeat(counts, sizes) < line_documents)
    gone = ~first & ~spared
    removed = np.stack([found.shards[gone].astype(np.uint64), found.places[gone]])
    write_array(folder / f"removed-{task:05d}.npy", removed[:, np.argsort(removed[0])])


class _Judge:
    """Removes what was found, document by document."""

    def __init__(self, folder: Path, shard: int, settings: ParagraphSettings) -> None:
        self.details: Counter[str] = Counter()
        self._left, self._document, self._next = settings.left_units, -1, 0
        parts = [np.empty(0, np.uint64)]
        for path in sorted(folder.glob("removed-*.npy")):
            removed = np.load(path, mmap_mode="r")
            first, behind = np.searchsorted(removed[0], np.array([shard, shard + 1], np.uint64))
            parts.append(np.array(removed[1, first:behind]))
        self._removed = np.sort(np.concatenate(parts))

    def __call__(self, document: Document) -> str | None:
        self._document += 1
        bound = np.uint64((self._document + 1) << 32)
        behind = self._next + int(np.searchsorted(self._removed[self._next :], bound))
        own = self._removed[self._next : behind].astype(np.uint32).tolist()
        self._next = behind
        if not own:
            return None
        lines = document.text.split("\n")
        gone = {(place >> 1, bool(place & 1)) for place in own}
        before, document.text = document.text, "\n".join(self._without(lines, gone))
        _, (_, had, both) = unit_hashes([before, document.text])
        left = both - had
        return "too little left" if left < self._left and left < had - left else None

    def _without(self, lines: list[str], gone: set[tuple[int, bool]]) -> list[str]:
        keep = [True] * len(lines)
        for part in _parts(lines):
            if (part.first, part.whole) not in gone or not keep[part.first]:
                continue
            keep[part.first : part.behind] = [False] * (part.behind - part.first)
            self.details["paragraphs removed" if part.whole else "lines removed"] += 1
        return _joined(lines, keep)


def _joined(lines: list[str], keep: list[bool]) -> list[str]:
    """The lines that stay, without blank ones that only parted them from what went."""
    out: list[str] = []
    cut = False
    for line, stays in zip(lines, keep, strict=True):
        blank = not line or line.isspace()
        if not stays:
            cut = True
        elif not (blank and cut and (not out or not out[-1].strip())):
            out.append(line)
            cut = cut and blank
    while cut and out and not out[-1].strip():
        out.pop()
    return out
