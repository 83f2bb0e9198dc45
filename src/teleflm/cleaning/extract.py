"""`extract`: the text of a web page, by trafilatura."""

import logging
from typing import Any, ClassVar, Literal

from datatrove.data import Document

from teleflm.cleaning.step import Step
from teleflm.config.base import Strict
from teleflm.errors import MissingExtraError


class ExtractSettings(Strict):
    """`tables` keeps the text of tables, `comments` that of readers' comments. `favour` is what
    trafilatura does in doubt: with `precision` it leaves more out, with `recall` it keeps more."""

    tables: bool = True
    comments: bool = False
    favour: Literal["balance", "precision", "recall"] = "balance"


class Extract(Step):
    """Replaces HTML (metadata `format` is `html`) by its text; other documents pass.

    Paragraphs, list items and table rows stay lines. Reasons: `no text`, where a page has none or
    cannot be read as HTML, and `failed`, where trafilatura raised; `details` say what.

    Raises:
        MissingExtraError: trafilatura, or lxml_html_clean which it needs, is not installed.
    """

    name: ClassVar[str] = "extract"
    Settings: ClassVar[type[Strict]] = ExtractSettings

    def __init__(self, settings: ExtractSettings) -> None:
        super().__init__(settings)
        try:
            import trafilatura
        except ModuleNotFoundError:
            raise MissingExtraError("trafilatura", "clean") from None
        except ImportError:  # raised by lxml for a part of its own, which pip does not always bring
            raise MissingExtraError("lxml_html_clean", "clean") from None
        # It reports each page without text as an error; here that is a reason, and counted.
        logging.getLogger("trafilatura").setLevel(logging.CRITICAL)
        self._extract = trafilatura.extract
        self._options: dict[str, Any] = {
            "output_format": "txt",
            "include_tables": settings.tables,
            "include_comments": settings.comments,
            "favor_precision": settings.favour == "precision",
            "favor_recall": settings.favour == "recall",
            # It would drop what earlier documents of this process held.
            "deduplicate": False,
        }

    def __call__(self, document: Document) -> str | None:
        """As `Step.__call__`; replaces the text, and `format` by `text`."""
        if document.metadata.get("format") != "html":
            return None
        try:
            text = self._extract(document.text, **self._options)
        # A page from the web makes a parser raise what no list has; the others are not to suffer.
        except Exception as error:
            self.details[f"raised {type(error).__name__}"] += 1
            return "failed"
        if not text or not text.strip():
            return "no text"
        document.text = text
        document.metadata["format"] = "text"
        return None
