"""`quality`: a score of how much a text is like good text, from a model that the user trained."""

from pathlib import Path
from typing import ClassVar

from datatrove.data import Document
from pydantic import Field

from teleflm.cleaning.score import Scorer
from teleflm.cleaning.step import Step
from teleflm.cleaning.tally import BINS
from teleflm.config.base import PathText, Strict


class QualitySettings(Strict):
    """`model` is a file of `teleflm data score train`. A document with a score below `threshold` is
    dropped. With `soft`, metadata `weight` is multiplied by min(1, score / soft)."""

    model: PathText
    threshold: float | None = Field(default=None, ge=0, le=1)
    soft: float | None = Field(default=None, gt=0, le=1)


class Quality(Step):
    """Puts the score, from 0 to 1, into metadata `score`. Reason: `low score`. Code is not scored,
    as the models learn from prose; `details` count it.

    Raises:
        DataError: the model is missing, damaged or of another version.
        MissingExtraError: scikit-learn is not installed.
    """

    name: ClassVar[str] = "quality"
    Settings: ClassVar[type[Strict]] = QualitySettings

    def __init__(self, settings: QualitySettings) -> None:
        super().__init__(settings)
        self._settings = settings
        self._scorer = Scorer.load(Path(settings.model))

    def __call__(self, document: Document) -> str | None:
        """As `Step.__call__`; adds `score`, with `soft` also `weight`, to the metadata."""
        metadata, settings = document.metadata, self._settings
        if metadata.get("language") == "code":
            self.details["not scored: code"] += 1
            return None
        score = self._scorer.score(document.text)
        metadata["score"] = round(score, 4)
        self.scores[min(int(score * BINS), BINS - 1)] += 1
        if settings.soft is not None:
            metadata["weight"] = metadata.get("weight", 1.0) * min(1.0, score / settings.soft)
        if settings.threshold is not None and score < settings.threshold:
            return "low score"
        return None
