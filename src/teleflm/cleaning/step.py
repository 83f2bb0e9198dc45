"""What a step of a cleaning recipe is.

A step sees one document after the other and knows nothing of files, workers or resuming. What it
decides is a function of the document and of its settings (and, for a `CorpusStep`, of the whole
corpus), never of the documents that the same worker happened to see before.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

from datatrove.data import Document

from teleflm.config.base import Strict


class Step(ABC):
    """A step that judges each document for itself. Every worker makes its own from the settings."""

    name: ClassVar[str]
    """What a recipe calls it."""
    Settings: ClassVar[type[Strict]]
    """What a recipe may set of it; every field has a default, unless the step cannot do without."""

    def __init__(self, settings: Strict) -> None:
        self.details: Counter[str] = Counter()
        """What the step counts beside the documents it drops: removed lines, hits by test set."""
        self.scores: Counter[int] = Counter()
        """Documents by the score that it gave them, in tally.BINS from 0 to 1."""

    @abstractmethod
    def __call__(self, document: Document) -> str | None:
        """Why `document` is dropped, in the words of a small closed set; None where it is kept.

        May change its text, and add to its metadata, which has `source`, `domain` and `language`.
        """

    def notes(self) -> list[str]:
        """What the user should know before the work begins, a line each."""
        return []


class Signer(Protocol):
    """Takes what a corpus step needs of each document of a shard, in order."""

    def add(self, document: Document) -> None:
        """Take the next document."""
        ...

    def close(self) -> None:
        """Write it all; a signer that is not closed has written nothing that counts."""
        ...


class Judge(Protocol):
    """Judges the documents of a shard in the order in which the signer saw them."""

    details: Counter[str]

    def __call__(self, document: Document) -> str | None:
        """As `Step.__call__`."""
        ...


class Round(NamedTuple):
    """Work between the signatures and the verdict: `work(task)` for each task below `tasks`.

    The tasks of a round run in any order, at the same time or not, and in other processes, so
    `work` can be pickled. A task that was killed is done again from its beginning.
    """

    name: str
    tasks: int
    work: Callable[[int], None]


class CorpusStep(ABC):
    """A step that has to see the whole corpus before it judges a document."""

    name: ClassVar[str]
    Settings: ClassVar[type[Strict]]

    @abstractmethod
    def __init__(self, settings: Strict) -> None: ...

    @abstractmethod
    def signer(self, folder: Path, shard: int) -> Signer:
        """What takes the documents of a shard; its files go to `folder`, the step's own."""

    @abstractmethod
    def rounds(self, folder: Path, shards: int, corpus_bytes: int) -> list[Round]:
        """What is done one after the other once all shards are signed.

        Known before the work begins: `corpus_bytes` is the size of the sources, as they lie on the
        disk, from which the number of tasks may follow.
        """

    @abstractmethod
    def judge(self, folder: Path, shard: int) -> Judge:
        """The verdict on the documents of a shard, after the rounds.

        The document that comes first, by shard and by its place there, is the one that is kept.
        """

    def clusters(self, folder: Path) -> list[dict[str, Any]]:
        """For the report, once all is judged: the largest groups of documents of which one was
        kept, each with its `size`, some `ids`, that one's first, and the beginning of its `text`.
        """
        return []
