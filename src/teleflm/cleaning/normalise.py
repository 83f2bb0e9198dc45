"""`normalise`: one way to write what looks the same, line ends, blanks; code is left to compile."""

import re
import unicodedata
from typing import ClassVar

from datatrove.data import Document
from pydantic import Field

from teleflm.cleaning.step import Step
from teleflm.config.base import Strict

_LINE_ENDS = re.compile("\r\n?|[\v\f\x85\u2028\u2029]")
_CODE_LINE_ENDS = re.compile("\r\n?")
# What no reader sees. The joiners U+200C and U+200D stay: Persian, Hindi and emoji are spelled with
# them. Half of a surrogate pair is no character, and no file of UTF-8 could hold it.
_UNSEEN = {
    "control characters": re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ufff9-\ufffc]"),
    "surrogates": re.compile("[\ud800-\udfff]"),
    "zero-width characters": re.compile("[\u200b\u2060-\u2064\ufeff]"),
    "direction marks": re.compile("[\u200e\u200f\u202a-\u202e\u2066-\u2069]"),
    "soft hyphens": re.compile("\xad"),
}
_ANY_UNSEEN = re.compile("[" + "".join(p.pattern.strip("[]") for p in _UNSEEN.values()) + "]")
_BLANKS = re.compile("[\xa0\u1680\u2000-\u200a\u202f\u205f]")
_TRAILING = re.compile("[ \t\u3000]+$", re.M)
_INDENT = re.compile("^\u3000+", re.M)
_BLANK_LINES = re.compile("\n{3,}")
_REPLACEMENT = "\ufffd"


class NormaliseSettings(Strict):
    """`damaged_share`: a text with a larger share of U+FFFD, of all characters, is dropped."""

    damaged_share: float = Field(default=0.005, ge=0, le=1)


class Normalise(Step):
    """Changes this and nothing else, in this order:

    1. Line ends of any system, line and paragraph separators, vertical tabs and form feeds become
       newlines.
    2. Characters that no reader sees are removed: control characters but the tab, halves of
       surrogate pairs, zero-width spaces and byte order marks, direction marks, soft hyphens.
    3. The text becomes NFC (composed characters; nothing is folded that looks different).
    4. No-break and typographic spaces become plain ones; ideographic spaces at a line's beginning,
       the indent of a Chinese paragraph, and blanks at a line's end are removed.
    5. More than one blank line in a row become one; blank lines at both ends are removed.

    Blanks within a line and indents of plain spaces and tabs stay. In code (`language: code`) only
    `\\r\\n` and `\\r` become newlines, a byte order mark at the beginning and halves of surrogate
    pairs are removed: what a string literal holds and how lines are indented is left alone.

    Replacement characters (U+FFFD) are counted and stay, as what they stand for is lost.
    Reasons: `empty`, where no text is left, and `damaged`.
    """

    name: ClassVar[str] = "normalise"
    Settings: ClassVar[type[Strict]] = NormaliseSettings

    def __init__(self, settings: NormaliseSettings) -> None:
        super().__init__(settings)
        self._damaged_share = settings.damaged_share

    def __call__(self, document: Document) -> str | None:
        """As `Step.__call__`; changes the text."""
        code = document.metadata.get("language") == "code"
        before = document.text
        document.text = text = self._code(before) if code else self._prose(before)
        self.details["changed documents"] += text != before
        if not text.strip():
            return "empty"
        if lost := text.count(_REPLACEMENT):
            self.details["replacement characters"] += lost
            if lost > self._damaged_share * len(text):
                return "damaged"
        return None

    def _code(self, text: str) -> str:
        text = _CODE_LINE_ENDS.sub("\n", text).removeprefix("\ufeff")
        return self._without(text, ["surrogates"])

    def _prose(self, text: str) -> str:
        text = _LINE_ENDS.sub("\n", text)
        if _ANY_UNSEEN.search(text):
            text = self._without(text, list(_UNSEEN))
        text = unicodedata.normalize("NFC", text)
        text = _BLANKS.sub(" ", text)
        text = _TRAILING.sub("", _INDENT.sub("", text))
        return _BLANK_LINES.sub("\n\n", text).strip("\n")

    def _without(self, text: str, kinds: list[str]) -> str:
        for kind in kinds:
            text, removed = _UNSEEN[kind].subn("", text)
            if removed:
                self.details[kind] += removed
        return text
