"""The items of test sets, and whether a text has one."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from teleflm.cleaning.units import Hashes, Places, Units, find_units, span_hashes
from teleflm.data.find import CorpusFile, find_corpus
from teleflm.data.records import records_of
from teleflm.data.sources import is_text, text_parts
from teleflm.data.unpack import unpacked_blocks
from teleflm.errors import DataError

# Records read at a time.
_RECORDS = 1 << 12
# A key is as many letters as the shortest n-gram may have, or a multiple up to this one.
_MULTIPLES = 3
# Bits of the hash of the first letters, by which nearly all of a text is passed over.
_FILTER_BITS = 22
_FILTER_SHIFT = np.uint64(64 - _FILTER_BITS)


class Counts(NamedTuple):
    """How many items a test set has, and how many of them are too short to be found."""

    items: int
    short: int


class Hit(NamedTuple):
    """What a text shares with a test set: the set's file, and the n-gram as it is compared."""

    test_set: str
    ngram: str


class _Ngrams(NamedTuple):
    """N-grams: hashes of their letters, of as many first ones as each has, and of a key's."""

    hashes: Hashes
    firsts: Hashes
    keys: Hashes
    lengths: Places


class TestItems:
    """The n-grams of test sets.

    An n-gram is a run of `words` words or of `characters` characters of scripts without spaces; of
    both mixed, a word counts as `characters / words` characters. It is compared letter by letter,
    so a text that writes "well known" has what a test set writes as "well-known".

    An item is a record with all its strings, one after the other, or a line of a .txt or .md file.
    It can be found if one of its strings is long enough by its units, or by the words and the
    characters as they are written, as "3 + 4 = 7" has five: then it is looked for as a whole.

    `counts` says how many there are of each file.
    """

    __test__ = False  # no test case, whatever its name

    def __init__(self, paths: Sequence[str], words: int, characters: int) -> None:
        """Raises DataError for a file that cannot be read or has no text in it."""
        self._words, self._characters = words, characters
        self._least = min(words, characters)
        self.counts: dict[str, Counts] = {}
        corpus = find_corpus(map(Path, paths))
        self._left_out = corpus.left_out
        found = [self._read(file) for file in corpus.files]
        sets = np.repeat(np.arange(len(found)), [len(ngrams.hashes) for ngrams in found])
        hashes, firsts, keys, lengths = (np.concatenate(part) for part in zip(*found, strict=True))
        order = np.lexsort((sets, hashes))
        self._hashes, self._sets = hashes[order], sets[order]
        self._names = list(self.counts)
        order = np.lexsort((lengths, keys))
        keys, lengths = keys[order], lengths[order]
        new = np.append(True, (keys[1:] != keys[:-1]) | (lengths[1:] != lengths[:-1]))[: len(keys)]
        self._keys, self._lengths = keys[new], lengths[new]
        self._filter = np.zeros(1 << _FILTER_BITS, np.bool_)
        self._filter[firsts >> _FILTER_SHIFT] = True

    def notes(self) -> list[str]:
        """A line on each path of which something was not read, and on items that are too short."""
        return self._left_out + [
            f"{name}: {short} of {items} items have less than {self._words} words or "
            f"{self._characters} characters in a row, so text is not searched for them"
            for name, (items, short) in self.counts.items()
            if short
        ]

    def search(self, text: str) -> Hit | None:
        """The first n-gram in `text` that a test set has too."""
        units = find_units([text])
        for unit, key in self._likely(units):
            begin = int(units.begins[unit])
            first = np.searchsorted(self._keys, key, "left")
            behind = np.searchsorted(self._keys, key, "right")
            # One that ends within a word is another.
            ends = np.intersect1d(begin + self._lengths[first:behind], units.ends)
            hashes = span_hashes(units.letters, np.full(len(ends), begin), ends)
            for end, hashed in zip(ends.tolist(), hashes, strict=True):
                at = int(np.searchsorted(self._hashes, hashed))
                if at < len(self._hashes) and self._hashes[at] == hashed:
                    return Hit(self._names[self._sets[at]], _spelt(units, unit, end))
        return None

    def _likely(self, units: Units) -> list[tuple[int, np.uint64]]:
        """The units at which a key begins, in rising order, and the key."""
        letters, begins = units.letters, units.begins
        begins = begins[: np.searchsorted(begins, len(letters) - self._least, "right")]
        firsts = span_hashes(letters, begins, begins + self._least)
        passed = np.flatnonzero(self._filter[firsts >> _FILTER_SHIFT])
        found: list[tuple[int, np.uint64]] = []
        for multiple in range(1, _MULTIPLES + 1):
            size = multiple * self._least
            passed = passed[begins[passed] <= len(letters) - size]
            if not len(passed):
                break
            keys = span_hashes(letters, begins[passed], begins[passed] + size)
            same = self._keys[np.searchsorted(self._keys, keys, "right") - 1] == keys
            found += zip(passed[same].tolist(), keys[same], strict=True)
        return sorted(found, key=lambda at: at[0])

    def _read(self, file: CorpusFile) -> _Ngrams:
        """The n-grams of a file, whose items are counted."""
        parts: list[_Ngrams] = []
        counts = Counts(0, 0)
        records = _texts(file) if is_text(file) else _records(file)
        while some := list(islice(records, _RECORDS)):
            ngrams, more = self._ngrams(some, is_text(file))
            parts.append(ngrams)
            counts = Counts(counts.items + more.items, counts.short + more.short)
        if not counts.items:
            raise DataError(f"{file.path}: no text in this test set; leave it out or fill it")
        self.counts[str(file.path)] = counts
        return _Ngrams(*(np.concatenate(part) for part in zip(*parts, strict=True)))

    def _ngrams(self, records: list[list[str]], lines: bool) -> tuple[_Ngrams, Counts]:
        """The n-grams of records, and how many items they are: each string one, if `lines`."""
        strings = [string for record in records for string in record]
        ends = np.cumsum([len(record) for record in records])
        units = find_units(strings)
        weights = np.where(units.alone, self._words, self._characters)
        before = np.append(0, np.cumsum(weights))
        needed = self._words * self._characters
        enough = np.diff(before[units.starts]) >= needed
        as_written = self._as_written(strings, units) & ~enough
        letters = _letters_before(units)
        end_of_record = np.repeat(units.starts[ends], np.diff(units.starts[np.append(0, ends)]))
        behind = np.searchsorted(before, before[:-1] + needed)
        within = np.flatnonzero(behind <= end_of_record)
        spans = [
            (units.begins[within], units.ends[behind[within] - 1]),
            (letters[:-1][as_written], letters[1:][as_written]),
        ]
        parts = [self._hashed(units.letters, *span) for span in spans]
        short = ~(enough | as_written)
        if not lines:
            short = np.logical_and.reduceat(short, np.append(0, ends[:-1]))
        ngrams = _Ngrams(*(np.concatenate(part) for part in zip(*parts, strict=True)))
        return ngrams, Counts(len(short), int(short.sum()))

    def _as_written(self, strings: list[str], units: Units) -> npt.NDArray[np.bool_]:
        """Whether each string is long enough with its symbols, and has letters for a key."""
        split = [string.split() for string in strings]
        words = np.array([len(parts) for parts in split])
        alone = np.diff(np.append(0, np.cumsum(units.alone))[units.starts])
        letters, own = np.diff(_letters_before(units)), np.diff(units.starts)
        # Units and what is no letter.
        characters = np.array([sum(map(len, parts)) for parts in split]) - letters + own
        without_spaces = 2 * alone > own
        enough = (words >= self._words) | (without_spaces & (characters >= self._characters))
        return enough & (letters >= self._least)

    def _hashed(self, letters: npt.NDArray[np.uint32], begins: Places, ends: Places) -> _Ngrams:
        lengths = ends - begins
        multiples = np.minimum(lengths // self._least, _MULTIPLES)
        keys = np.empty(len(begins), np.uint64)
        for multiple in range(1, _MULTIPLES + 1):
            some = multiples == multiple
            keys[some] = span_hashes(letters, begins[some], begins[some] + multiple * self._least)
        firsts = span_hashes(letters, begins, begins + self._least)
        return _Ngrams(span_hashes(letters, begins, ends), firsts, keys, lengths)


def _letters_before(units: Units) -> Places:
    """Where the letters of each text begin, shape (texts + 1,)."""
    return np.append(units.begins, len(units.letters))[units.starts]


def _spelt(units: Units, first: int, end: int) -> str:
    """The units from `first` to the letter `end`, with spaces between words."""
    parts: list[str] = []
    for unit in range(first, int(np.searchsorted(units.begins, end))):
        letters = units.letters[units.begins[unit] : units.ends[unit]]
        gap = "" if units.alone[unit] or not parts else " "
        parts.append(gap + "".join(map(chr, letters.tolist())))
    return "".join(parts)


def _texts(file: CorpusFile) -> Iterator[list[str]]:
    """The lines of a text file, in parts of it."""
    for text in text_parts(file.path, unpacked_blocks(file, lambda _: None)):
        if lines := [line for line in text.split("\n") if line.strip()]:
            yield lines


def _records(file: CorpusFile) -> Iterator[list[str]]:
    """The strings of each record of a file."""
    for _, record in records_of(file, None, lambda _: None):
        if strings := list(_strings(record)):
            yield strings


def _strings(value: Any) -> Iterator[str]:
    """Each string in a value, nested ones too, in order."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _strings(part)
