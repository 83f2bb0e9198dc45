"""What source code is dropped for, after the rules of The Stack and StarCoder (Li et al., 2023)."""

import re

from pydantic import Field

from teleflm.config.base import Strict

_WORD_CHARACTER = re.compile(r"\w+")
_DIGITS = re.compile("[0-9]+")
# Bytes, escapes and lists of numbers; tables in base64 and the like are one long word.
_DATA = re.compile(
    r"(?:(?:0[xX])?[0-9a-fA-F]{1,32}[uUlLfF]{0,3}[\s,;\[\](){}]{1,32}){8,}"
    r"|(?:\\x[0-9a-fA-F]{2}|\\[0-7]{3}){8,}|[A-Za-z0-9+/=]{200,}"
)
_HANDS_OFF = "(?:do not|don't|don’t) (?:edit|modify|change)"
_GENERATED = re.compile(
    f"generated.{{0,200}}?{_HANDS_OFF}|{_HANDS_OFF}.{{0,200}}?generated|@generated", re.I | re.S
)
_HEAD = 1000  # characters in which a generator says so


class CodeRules(Strict):
    """`longest_line` and `mean_line` in characters; `letters` is the least share of letters,
    digits and _ among characters that are not blank, `data` the largest share of literal data."""

    fewest: int = Field(default=30, ge=0)
    longest_line: int = Field(default=2000, ge=1)
    mean_line: float = Field(default=120, gt=0)
    letters: float = Field(default=0.35, ge=0, le=1)
    data: float = Field(default=0.6, ge=0, le=1)


def code_fault(text: str, rules: CodeRules) -> str | None:
    """Why a file of source code is dropped."""
    filled = len(text) - sum(map(text.count, " \n\t"))
    if filled < rules.fewest:
        return "too short"
    lines = text.split("\n")
    if max(map(len, lines)) > rules.longest_line or len(text) > rules.mean_line * len(lines):
        return "long lines"
    if _GENERATED.search(text[:_HEAD]):
        return "generated"
    words = sum(map(len, _WORD_CHARACTER.findall(text)))
    if words < rules.letters * filled:
        return "few letters"
    # Digits first: they are quickly counted, and few files have many.
    if sum(map(len, _DIGITS.findall(text))) > 0.2 * filled or "\\x" in text:
        data = sum(len("".join(m[0].split())) for m in _DATA.finditer(text))
        return "mostly data" if data > rules.data * filled else None
    return None
