"""`repetition`: drops what says the same over and over.

After Gopher (Rae et al., 2021, table A1): duplicate lines, duplicate paragraphs and n-grams that
are most of a text. Its bounds drop psalms and poems for their refrains, so here a line counts from
its third time on, and n-grams are as long as a sentence or recur far more often than a refrain.
"""

import re
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import ClassVar

from datatrove.data import Document
from pydantic import Field

from teleflm.cleaning.step import Step
from teleflm.config.base import Strict

_WORD = re.compile(r"\w+")
_NO_CHARACTER = re.compile(r"[\W_]+")
_UNSPACED = frozenset({"zh", "ja", "th", "lo", "my", "km", "bo", "yue", "wuu"})
"""Languages that put no space between words; they are counted in characters."""

_REFRAIN = 2  # times that a line may stand before it is counted
_REFRAIN_PHRASE = (
    6  # times that a phrase may recur, whatever its share: some songs have little else
)


class RepetitionSettings(Strict):
    """The largest shares of a text, from 0 to 1, that may be: `lines` and `paragraphs` that stood
    there twice before, by characters; `top`, the most frequent n-gram of `top_n` units; `long`,
    n-grams of `long_n` units that occur more than once. Units are words, and characters where
    there are no spaces between words (twice as many of them). Shorter texts than `fewest` units
    are kept."""

    lines: float = Field(default=0.3, ge=0, le=1)
    paragraphs: float = Field(default=0.3, ge=0, le=1)
    top: float = Field(default=0.25, ge=0, le=1)
    top_n: int = Field(default=2, ge=1)
    long: float = Field(default=0.6, ge=0, le=1)
    long_n: int = Field(default=10, ge=2)
    fewest: int = Field(default=20, ge=0)


class Repetition(Step):
    """Reasons: `repeated lines`, `repeated paragraphs`, `one phrase` (the most frequent n-gram) and
    `repeated passages` (long n-grams). Code is judged by lines and paragraphs alone."""

    name: ClassVar[str] = "repetition"
    Settings: ClassVar[type[Strict]] = RepetitionSettings

    def __init__(self, settings: RepetitionSettings) -> None:
        super().__init__(settings)
        self._settings = settings

    def __call__(self, document: Document) -> str | None:
        """As `Step.__call__`."""
        settings, text = self._settings, document.text
        language = document.metadata.get("language")
        code = language == "code"
        if _again(text.split("\n"), code) > settings.lines * len(text):
            return "repeated lines"
        if _again(text.split("\n\n"), code) > settings.paragraphs * len(text):
            return "repeated paragraphs"
        if code:
            return None
        unspaced = language in _UNSPACED
        low = text.lower()
        units = _NO_CHARACTER.sub("", low) if unspaced else _WORD.findall(low)
        if len(units) < settings.fewest:
            return None
        scale = 2 if unspaced else 1
        if _top_share(units, scale * settings.top_n) > settings.top:
            return "one phrase"
        if _repeated_share(units, scale * settings.long_n) > settings.long:
            return "repeated passages"
        return None


def _again(pieces: Sequence[str], code: bool) -> int:
    """Characters of the pieces that stood there as often as a refrain may before. In code, a line
    without a word in it (a bracket) is none."""
    counts = Counter(pieces)
    if len(counts) == len(pieces):
        return 0
    return sum(
        (count - _REFRAIN) * len(piece)
        for piece, count in counts.items()
        if count > _REFRAIN and not (code and not _WORD.search(piece))
    )


def _grams(units: Sequence[str], n: int) -> Iterable[Hashable]:
    """Runs of `n` units: parts of a string of characters, tuples out of a list of words."""
    if isinstance(units, str):
        return (units[at : at + n] for at in range(len(units) - n + 1))
    return zip(*(units[at:] for at in range(n)), strict=False)


def _top_share(units: Sequence[str], n: int) -> float:
    """Share of the units that the most frequent n-gram covers; 0 where it may be a refrain."""
    counts = Counter(_grams(units, n))
    most = max(counts.values(), default=0)
    return most * n / len(units) if most > _REFRAIN_PHRASE else 0.0


def _repeated_share(units: Sequence[str], n: int) -> float:
    """Share of the units that stand in an n-gram which occurred before."""
    seen: set[Hashable] = set()
    covered = end = 0
    for at, gram in enumerate(_grams(units, n)):
        if gram in seen:
            covered += at + n - max(end, at)
            end = at + n
        else:
            seen.add(gram)
    return covered / len(units)
