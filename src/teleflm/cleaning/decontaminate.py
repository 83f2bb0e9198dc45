"""The step `decontaminate`: documents that hold an item of a test set go."""

from functools import lru_cache
from typing import ClassVar

from datatrove.data import Document
from pydantic import Field

from teleflm.cleaning.items import TestItems
from teleflm.cleaning.step import Step
from teleflm.config.base import PathText, Strict


class DecontaminateSettings(Strict):
    """How much of a test item a document may not share."""

    words: int = Field(default=13, ge=1)
    """Words in a row …"""
    characters: int = Field(default=20, ge=1)
    """… or characters of scripts without spaces."""
    test_sets: tuple[PathText, ...] = Field(min_length=1)
    """Files and folders of test items; the recipe's own."""


class Decontaminate(Step):
    """Drops documents that share an n-gram with a test set, whatever the language of either."""

    name = "decontaminate"
    Settings: ClassVar[type[Strict]] = DecontaminateSettings

    def __init__(self, settings: Strict) -> None:
        assert isinstance(settings, DecontaminateSettings)
        super().__init__(settings)
        self._items = read_test_sets(settings)

    def notes(self) -> list[str]:
        """As `Step.notes`: what is not read of the test sets, and items too short to be found."""
        return self._items.notes()

    def __call__(self, document: Document) -> str | None:
        hit = self._items.search(document.text)
        if hit is None:
            return None
        document.metadata["hit"] = hit._asdict()
        self.details[f"hits {hit.test_set}"] += 1
        return "test item"


@lru_cache(maxsize=1)
def read_test_sets(settings: DecontaminateSettings) -> TestItems:
    """The test sets of `settings`, read once a process.

    Raises:
        DataError: a test set that cannot be read or has no text in it.
    """
    return TestItems(settings.test_sets, settings.words, settings.characters)
