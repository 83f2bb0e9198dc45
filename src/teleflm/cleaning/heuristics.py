"""`heuristics`: rules of thumb on what clean text and code look like, by language."""

from typing import ClassVar

from datatrove.data import Document

from teleflm.cleaning.code_rules import CodeRules, code_fault
from teleflm.cleaning.prose_rules import (
    ChineseRules,
    EnglishRules,
    OtherRules,
    chinese_fault,
    english_fault,
    is_chinese,
    other_fault,
)
from teleflm.cleaning.step import Step
from teleflm.config.base import Strict


class HeuristicsSettings(Strict):
    """The rules of each language."""

    chinese: ChineseRules = ChineseRules()
    english: EnglishRules = EnglishRules()
    other: OtherRules = OtherRules()
    code: CodeRules = CodeRules()


class Heuristics(Step):
    """Drops what its language's rules say. Chinese and English are told by their script, as a page
    of a Chinese source that was never translated is to be judged as English; whether it belongs
    there is what `language` asks.

    Reasons, of prose: `too short`, `spam`, `boilerplate`, `menu`, `few letters`, `bullets`,
    `ellipses`; in English also `odd words`, `few stop words`; of code: `too short`, `long lines`,
    `generated`, `few letters`, `mostly data`.
    """

    name: ClassVar[str] = "heuristics"
    Settings: ClassVar[type[Strict]] = HeuristicsSettings

    def __init__(self, settings: HeuristicsSettings) -> None:
        super().__init__(settings)
        self._rules = settings

    def __call__(self, document: Document) -> str | None:
        """As `Step.__call__`."""
        text, language = document.text, document.metadata.get("language")
        if language == "code":
            return code_fault(text, self._rules.code)
        if language not in ("zh", "en"):
            return other_fault(text, self._rules.other)
        if is_chinese(text):
            return chinese_fault(text, self._rules.chinese)
        return english_fault(text, self._rules.english)
