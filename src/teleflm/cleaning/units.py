"""Text → units → 64-bit hashes, in numpy and for many texts at once.

A unit is a word: a run of letters, marks and digits after NFKC and case folding. Of scripts that
are written without spaces (Han, kana, Bopomofo, Thai, Lao, Tibetan, Burmese, Khmer) it is one
character. Apostrophes and characters that nobody sees (soft hyphens, zero-width spaces) are passed
over, so that "don't" is one word; all else is a gap. So case, punctuation, white space and the
width of a character change no unit.

A hash is a function of the text alone: the same in each process, on each platform, whatever the
other texts of the call. It follows Python's own Unicode tables, which settle what a code point is
once it is assigned.
"""

import sys
import unicodedata
from collections.abc import Sequence
from functools import cache
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]

# What a code point is, in the bits above those of what it is folded to.
_CLASS_SHIFT = 24
_WORD, _ALONE, _IGNORED, _COMPLEX = 1, 2, 3, 4
_CODE = np.uint32((1 << _CLASS_SHIFT) - 1)

_ALONE_RANGES = (
    (0x0E00, 0x109F),  # Thai, Lao, Tibetan, Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x3005, 0x3007),  # the iteration mark, the closing mark, zero
    (0x3041, 0x312F),  # kana, Bopomofo
    (0x31A0, 0x31FF),
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x1B000, 0x1B16F),  # kana
    (0x20000, 0x3FFFF),  # Han
)
# Hangul is put together from these.
_JAMO = (0x1160, 0x11FF)
_APOSTROPHES = (0x27, 0x2019, 0x02BC)
_VARIATION_SELECTORS = ((0xFE00, 0xFE0F), (0xE0100, 0xE01EF))
# What folds to itself, and would take a while to ask for one by one.
_PLAIN = (
    (0x3400, 0x4DBF, _ALONE),
    (0x4E00, 0x9FFF, _ALONE),
    (0xAC00, 0xD7A3, _WORD),  # Hangul
    (0x20000, 0x2F7FF, _ALONE),
    (0x30000, 0x3FFFF, _ALONE),
)
_OTHERS = (
    (0x0000, 0x33FF),
    (0x4DC0, 0x4DFF),
    (0xA000, 0xABFF),
    (0xD7A4, 0x1FFFF),
    (0x2F800, 0x2FA1F),
    (0xE0000, 0xE01EF),
)

# Any odd numbers do. The multiplier's powers weigh what stands at each place of a span.
_MULTIPLIER = 0x9E6C63D0876A9A47
_INVERSE = pow(_MULTIPLIER, -1, 1 << 64)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
# As many spans are hashed at once as leave their numbers in the processor's cache.
_SPANS = 1 << 15
# A longer text is taken apart, so that what is kept of it at a time is bounded.
_CHARACTERS = 1 << 20


class Units(NamedTuple):
    """The units of texts, one text after the other.

    `letters` holds the folded code points of all units with nothing in between, `begins` and `ends`
    (exclusive) where each unit stands in it, `alone` whether a unit is a character and no word, and
    `starts`, shape (texts + 1,), the first unit of each text.
    """

    letters: npt.NDArray[np.uint32]
    begins: Places
    ends: Places
    alone: npt.NDArray[np.bool_]
    starts: Places


def find_units(texts: Sequence[str]) -> Units:
    """The units of each of `texts`."""
    if all(len(text) <= _CHARACTERS for text in texts):
        return _find(texts)
    cut = [_cut(text) for text in texts]
    parts = [_find([part]) for of_text in cut for part in of_text]
    letters, begins, ends, alone, _ = (
        np.concatenate(columns) for columns in zip(*parts, strict=True)
    )
    units = np.cumsum([0, *(len(part.begins) for part in parts)])
    before = np.cumsum([0, *(len(part.letters) for part in parts[:-1])])
    offsets = np.repeat(before, np.diff(units))
    starts = units[np.cumsum([0, *map(len, cut)])]
    return Units(letters, begins + offsets, ends + offsets, alone, starts)


def _find(texts: Sequence[str]) -> Units:
    # A line end is a gap, so no unit reaches over one.
    folded, starts = _fold(texts)
    kind = folded >> np.uint32(_CLASS_SHIFT)
    ignored = kind == _IGNORED
    if ignored.any():
        seen = ~ignored
        starts = np.concatenate([[0], np.cumsum(seen)])[starts]
        folded, kind = folded[seen], kind[seen]
    word, alone = kind == _WORD, kind == _ALONE
    within = np.zeros_like(word)
    within[1:] = word[1:] & word[:-1]
    first = (word & ~within) | alone
    last = alone.copy()
    last[:-1] |= word[:-1] & ~within[1:]
    last[-1:] |= word[-1:]
    lettered = word | alone
    # Places among letters, in place of places among all characters.
    before = np.zeros(len(kind) + 1, np.int64)
    np.cumsum(lettered, out=before[1:])
    begins = np.flatnonzero(first)
    return Units(
        folded[lettered] & _CODE,
        before[begins],
        before[np.flatnonzero(last) + 1],
        alone[begins],
        np.searchsorted(begins, starts),
    )


def unit_hashes(texts: Sequence[str]) -> tuple[Hashes, Places]:
    """A hash of each unit of `texts`, and the first unit of each text, shape (texts + 1,)."""
    units = find_units(texts)
    return span_hashes(units.letters, units.begins, units.ends), units.starts


def _cut(text: str) -> list[str]:
    """`text` in parts of at most `_CHARACTERS`, between two words where there is a space."""
    parts, start = [], 0
    while len(text) - start > _CHARACTERS:
        end = start + _CHARACTERS
        end = max(text.rfind(gap, start + 1, end) for gap in " \n") + 1 or end
        parts.append(text[start:end])
        start = end
    return [*parts, text[start:]]


def name_hashes(names: Sequence[str]) -> Hashes:
    """A hash of each name as it is written, shape (names,)."""
    known = {name: blake2b(name.encode(), digest_size=8).digest() for name in set(names)}
    return np.frombuffer(b"".join(known[name] for name in names), "<u8")


def ngram_hashes(hashes: Hashes, starts: Places, length: int) -> tuple[Hashes, Places]:
    """A hash of each run of `length` units, and the first run of each text, shape (texts + 1,).

    A text of fewer units has one run, which is all of it; one without units has none.
    """
    sizes = np.diff(starts)
    end_of_text = np.repeat(starts[1:], sizes)
    ends = np.arange(length, len(hashes) + length)
    fits = ends <= end_of_text
    fits[starts[:-1][sizes > 0]] = True
    begins = np.flatnonzero(fits)
    ends = np.minimum(ends[begins], end_of_text[begins])
    return span_hashes(hashes, begins, ends), np.searchsorted(begins, starts)


def span_hashes(values: npt.NDArray[np.unsignedinteger], begins: Places, ends: Places) -> Hashes:
    """A hash of each of the spans `values[begin:end]`, equal where the spans are.

    Neither `begins` nor `ends` may fall from one span to the next.
    """
    out = np.empty(len(begins), np.uint64)
    for at in range(0, len(begins), _SPANS):
        some = slice(at, at + _SPANS)
        first = begins[at]
        held = values[first : ends[some][-1]]
        size = 1 << len(held).bit_length()
        sums = np.zeros(len(held) + 1, np.uint64)
        np.cumsum(held * _powers(_MULTIPLIER, size)[: len(held)], out=sums[1:])
        begin = begins[some] - first
        weighted = sums[ends[some] - first] - sums[begin]
        out[some] = mix(weighted * _powers(_INVERSE, size)[begin])
    return out


def mix(values: Hashes) -> Hashes:
    """A one-to-one function in which each bit hangs on all others (Steele et al., SplitMix)."""
    values = values ^ (values >> np.uint64(30))
    values *= _MIX[0]
    values ^= values >> np.uint64(27)
    values *= _MIX[1]
    values ^= values >> np.uint64(31)
    return values


@cache
def _powers(base: int, size: int) -> Hashes:
    powers = np.full(size, base, np.uint64)
    powers[0] = 1
    return np.cumprod(powers)


def _fold(texts: Sequence[str]) -> tuple[npt.NDArray[np.uint32], Places]:
    """Folded code points with their classes, of all texts with a gap between any two, and where
    each text starts, shape (texts + 1,)."""
    codes, starts = _codes(texts)
    folded = _table()[codes]
    complex_ = np.flatnonzero(folded >> np.uint32(_CLASS_SHIFT) >= _COMPLEX)
    if complex_.size:
        which = set((np.searchsorted(starts, complex_, side="right") - 1).tolist())
        codes, starts = _codes(
            [unicodedata.normalize("NFKC", t) if i in which else t for i, t in enumerate(texts)]
        )
        folded = _table()[codes]
        marks = folded >> np.uint32(_CLASS_SHIFT) >= _COMPLEX
        folded[marks] -= np.uint32(_COMPLEX << _CLASS_SHIFT)
    return folded, starts


def _codes(texts: Sequence[str]) -> tuple[npt.NDArray[np.uint32], Places]:
    joined = "\n".join([*texts, ""])
    codes = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), "<u4")
    return codes, np.cumsum([0, *(len(text) + 1 for text in texts)])


@cache
def _table() -> npt.NDArray[np.uint32]:
    """What each code point is folded to, and above it its class.

    What NFKC makes several characters of, or may put together with the one before, is complex: a
    text that holds it goes through NFKC as a whole. Nothing else is changed by its neighbours.
    """
    table = np.zeros(sys.maxunicode + 1, np.uint32)
    for first, last, kind in _PLAIN:
        table[first : last + 1] = np.arange(first, last + 1) | kind << _CLASS_SHIFT
    for first, last in _OTHERS:
        table[first : last + 1] = [_entry(chr(code)) for code in range(first, last + 1)]
    return table


def _entry(character: str) -> int:
    if unicodedata.category(character) in ("Cn", "Co", "Cs"):
        return 0
    normal = unicodedata.normalize("NFKC", character)
    if len(normal) > 1:
        kinds = {_kind(part) for part in normal}
        return _COMPLEX << _CLASS_SHIFT if kinds != {0} else 0
    folded = next(f for f in (normal.casefold(), normal.lower(), normal) if len(f) == 1)
    kind = _kind(folded)
    if unicodedata.category(folded)[0] == "M" or _JAMO[0] <= ord(folded) <= _JAMO[1]:
        kind += _COMPLEX if kind != _IGNORED else 0
    return kind << _CLASS_SHIFT | ord(folded)


def _kind(character: str) -> int:
    code, category = ord(character), unicodedata.category(character)
    selector = any(first <= code <= last for first, last in _VARIATION_SELECTORS)
    if selector or category == "Cf" or code in _APOSTROPHES:
        return _IGNORED
    if category[0] not in "LNM":
        return 0
    return _ALONE if any(first <= code <= last for first, last in _ALONE_RANGES) else _WORD
