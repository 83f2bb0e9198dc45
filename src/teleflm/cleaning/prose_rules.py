"""What a text in Chinese, in English or in another language is dropped for.

In the spirit of the rules of Gopher (Rae et al., 2021), C4 (Raffel et al., 2020) and FineWeb
(Penedo et al., 2024), with bounds of our own, chosen on poems, scripture and manuals on one side
and planted spam and boilerplate on the other (docs/log.md). English is counted in words, Chinese in
characters: a poem of twenty is whole.
"""

import re

from pydantic import Field

from teleflm.cleaning.phrases import Points, phrase_points
from teleflm.config.base import Strict

_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af]+")
_LATIN = re.compile("[A-Za-z]+")
_LETTERS = re.compile(r"[^\W\d_]+")
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_BULLETS = ("-", "*", "•", "·", "‣", "●", "○", "■", "◆", "▪", "–", "+")
_ELLIPSES = ("...", "…", "。。。")
# Of what a menu, a footer or a list of links is made: pieces without a stop in them.
_PIECE_ENDS = re.compile(r"[\s|>»/·、_]+")
_STOP = re.compile("[，。！？；：,!?;。”」』）)]|\\.$")
_STOP_WORDS_TEXT = """
a about after all also an and any are as at be because been before being but by can could
did do does for from had has have he her here him his how i if in into is it its may me more
most must my no not now of on one only or other our out over said shall she should so some
such than that the their them then there these they this thou those thy to unto up upon us
was we were what when where which who will with would ye yet you your
"""
_STOP_WORDS = frozenset(_STOP_WORDS_TEXT.split())


class ProseRules(Strict):
    """`letters` is the least share of letters among characters that are not blank; `bullets` and
    `ellipses` the largest share of lines that begin and end so; `menu` the largest share of letters
    in short pieces or lines without a stop."""

    letters: float = Field(default=0.5, ge=0, le=1)
    bullets: float = Field(default=0.9, ge=0, le=1)
    ellipses: float = Field(default=0.3, ge=0, le=1)
    menu: float = Field(default=0.6, ge=0, le=1)


class OtherRules(ProseRules):
    """`fewest` letters that a text has."""

    fewest: int = Field(default=20, ge=0)


class ChineseRules(ProseRules):
    """`fewest` characters; `points` that spam and boilerplate have at least, in all and for 100
    characters."""

    fewest: int = Field(default=8, ge=0)
    points: int = Field(default=4, ge=1)
    points_per_100: float = Field(default=8, gt=0)


class EnglishRules(ProseRules):
    """`fewest` words; `points` as in Chinese, for 100 words; `stop_words` is the least share of
    words that every text has, and `word_length` the bounds of the mean word's letters."""

    fewest: int = Field(default=8, ge=0)
    points: int = Field(default=6, ge=1)
    points_per_100: float = Field(default=16, gt=0)
    stop_words: float = Field(default=0.15, ge=0, le=1)
    word_length: tuple[float, float] = (2.5, 10)


_FEWEST_LINES = 4  # of which a share says something
_FEWEST_PIECES = 6
_SHORTEST_VERSE = 4  # characters
_LONGEST_PIECE, _LONGEST_LINE = 8, 4  # characters, and words, of what may stand in a menu
_SHORT = 30  # characters or words; points of a shorter text are for as many
_FEWEST_WORDS = 20  # of which a share of stop words says something


_SOME = 1000  # characters that tell in which script a text is


def is_chinese(text: str) -> bool:
    """Whether its beginning has more Chinese characters than it has Latin words of four letters."""
    some = text[:_SOME]
    return 4 * _characters(some) > sum(map(len, _LATIN.findall(some)))


def _characters(text: str) -> int:
    """How many Chinese characters there are."""
    return sum(map(len, _HAN.findall(text)))


def other_fault(text: str, rules: OtherRules) -> str | None:
    """Why a text in a language without rules of its own is dropped."""
    if sum(map(len, _LETTERS.findall(text))) < rules.fewest:
        return "too short"
    return _form_fault(text, rules)


def chinese_fault(text: str, rules: ChineseRules) -> str | None:
    """Why a text in Chinese is dropped."""
    count = _characters(text)
    if count < rules.fewest:
        return "too short"
    # A Latin word among them counts as a character.
    units = count + len(_LATIN.findall(text))
    points = phrase_points(text, "zh")
    if _is_full_of(points, units, rules):
        return _kind(points)
    pieces = _PIECE_ENDS.split(text)
    short = [
        p for p in pieces if len(p) <= _LONGEST_PIECE and _HAN.search(p) and not _STOP.search(p)
    ]
    letters = sum(map(_characters, short))
    # Verses without stops are pieces of one length, and of four characters at least.
    verses = len({len(piece) for piece in short}) == 1 and len(short[0]) >= _SHORTEST_VERSE
    if len(short) >= _FEWEST_PIECES and letters > rules.menu * count and not verses:
        return "menu"
    return _form_fault(text, rules)


def english_fault(text: str, rules: EnglishRules) -> str | None:
    """Why a text in English is dropped."""
    words = _WORD.findall(text.lower())
    if len(words) < rules.fewest:
        return "too short"
    points = phrase_points(text, "en")
    if _is_full_of(points, len(words), rules):
        return _kind(points)
    length = sum(map(len, words)) / len(words)
    if not rules.word_length[0] <= length <= rules.word_length[1]:
        return "odd words"
    lines = [line.split() for line in text.splitlines()]
    short = [
        line for line in lines if 0 < len(line) <= _LONGEST_LINE and not _STOP.search(line[-1])
    ]
    if len(short) >= _FEWEST_PIECES and sum(map(len, short)) > rules.menu * len(words):
        return "menu"
    if len(words) >= _FEWEST_WORDS:
        stops = sum(map(_STOP_WORDS.__contains__, words))
        if stops < rules.stop_words * len(words):
            return "few stop words"
    return _form_fault(text, rules)


def _form_fault(text: str, rules: ProseRules) -> str | None:
    """What holds in any language."""
    filled = len(text) - sum(map(text.count, " \n\t\u3000"))
    if sum(map(len, _LETTERS.findall(text))) < rules.letters * filled:
        return "few letters"
    lines = [line for line in map(str.strip, text.splitlines()) if line]
    if len(lines) >= _FEWEST_LINES:
        if sum(line.startswith(_BULLETS) for line in lines) > rules.bullets * len(lines):
            return "bullets"
        if sum(line.endswith(_ELLIPSES) for line in lines) > rules.ellipses * len(lines):
            return "ellipses"
    return None


def _is_full_of(points: Points, units: int, rules: ChineseRules | EnglishRules) -> bool:
    allowed = rules.points_per_100 * max(units, _SHORT) / 100
    return points.all >= rules.points and points.all >= allowed


def _kind(points: Points) -> str:
    return "spam" if points.spam > points.boilerplate else "boilerplate"
