"""Phrases and signs that crowd in spam and boilerplate, counted as points."""

import re
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from teleflm.config.base import read_yaml

_WORD = re.compile("[a-z0-9%]+(?:'[a-z]+)?")
_WEIGHTS = {"strong": 2, "weak": 1}
# The same word over and over is repetition's matter; here it says little more than once.
_MOST_OF_ONE = 2

_Sign = tuple[re.Pattern[str], int, int]

# Ways to be reached, prices and shouting: the points of a hit, and the most that all hits have.
# Each pattern begins with what is rare in a text, so that a search skips the rest.
_URLS = (re.compile(r"://|www\.|\.(?:com|cn|net|cc|xyz|top|vip|club|site)\b"), 2, 6)
_SHOUTING = (re.compile("[!！]"), 1, 4)
_MARKS = ("★", "☆", "◆", "●", "▶", "►", "✅", "🔥", "👉", "💰", "【", "!!", "！！", ">>", "》》")
_MOST_MARKS = 4
_FOOTER = (re.compile("©|[Cc]opyright (?:\\([Cc]\\)|(?:19|20)[0-9]{2})"), 3, 3)
_SIGNS: dict[str, list[_Sign]] = {
    "zh": [
        (
            re.compile(
                "(?:微信|[微薇威卫][信芯心]|[Qq][Qq]|电话|热线|手机|客服|联系|群)"
                "[^。，\n]{0,8}?[A-Za-z0-9][A-Za-z0-9_-]{4}"
            ),
            3,
            9,
        ),
        (
            re.compile(
                "(?:1[3-9][0-9]{9}|400-?[0-9]{3,4}-?[0-9]{3,4}|0[0-9]{2,3}-[0-9]{7,8})(?![0-9])"
            ),
            3,
            9,
        ),
        (re.compile("[0-9一二三十百千万] ?(?:[元折万倍%]|块钱)"), 1, 4),
        _URLS,
        _SHOUTING,
    ],
    "en": [
        (re.compile("1-?8[0-9]{2}-[0-9]{3}-[0-9]{4}"), 3, 6),
        (re.compile("[$€£] ?[0-9]|[0-9]%"), 1, 4),
        _URLS,
        _SHOUTING,
    ],
}


class Points(NamedTuple):
    """What was found: `spam` and `boilerplate` by kind, and `all`, where a phrase of both kinds
    counts once."""

    spam: int
    boilerplate: int
    all: int


class _Phrases(NamedTuple):
    """Phrases by how they begin (two characters in Chinese, a word in English), so that a text is
    searched for those alone whose beginning it has. `points` are (spam, boilerplate)."""

    points: dict[str, tuple[int, int]]
    by_beginning: dict[str, list[str]]


@cache
def _table() -> dict[str, _Phrases]:
    """The file's phrases, by language."""
    table = {}
    for language, kinds in read_yaml(Path(__file__).with_name("phrases.yaml")).items():
        points: dict[str, tuple[int, int]] = {}
        for column, kind in enumerate(("spam", "boilerplate")):
            for strength, lines in kinds[kind].items():
                for phrase in ", ".join(lines).split(", "):
                    both = list(points.get(phrase, (0, 0)))
                    both[column] = max(both[column], _WEIGHTS[strength])
                    points[phrase] = (both[0], both[1])
        by_beginning: dict[str, list[str]] = {}
        for phrase in points:
            beginning = phrase.split()[0] if language == "en" else phrase[:2]
            by_beginning.setdefault(beginning, []).append(phrase)
        table[language] = _Phrases(points, by_beginning)
    return table


def phrase_points(text: str, language: str) -> Points:
    """The points of `text`, by the phrases of `language` (`zh` or `en`)."""
    phrases = _table()[language]
    spam = boilerplate = total = 0
    for phrase, count in _found(text, phrases, language):
        of_spam, of_boilerplate = phrases.points[phrase]
        count = min(count, _MOST_OF_ONE)
        spam += count * of_spam
        boilerplate += count * of_boilerplate
        total += count * max(of_spam, of_boilerplate)
    signs, footer = _signs(text, _SIGNS[language]), _signs(text, [_FOOTER])
    signs += min(sum(map(text.count, _MARKS)), _MOST_MARKS)
    return Points(spam + signs, boilerplate + footer, total + signs + footer)


def _found(text: str, phrases: _Phrases, language: str) -> Iterator[tuple[str, int]]:
    """The phrases in `text`, and how often."""
    if language == "en":
        words = _WORD.findall(text.lower())
        beginnings = set(words)
        # Whole words: each has a blank on both sides, of its own where two meet.
        text = " " + "  ".join(words) + " "
        for beginning in phrases.by_beginning.keys() & beginnings:
            for phrase in phrases.by_beginning[beginning]:
                if count := text.count(" " + phrase.replace(" ", "  ") + " "):
                    yield phrase, count
        return
    for beginning in phrases.by_beginning.keys() & set(map("".join, pairwise(text))):
        for phrase in phrases.by_beginning[beginning]:
            if count := text.count(phrase):
                yield phrase, count


def _signs(text: str, signs: list[_Sign]) -> int:
    return sum(min(each * len(pattern.findall(text)), most) for pattern, each, most in signs)
