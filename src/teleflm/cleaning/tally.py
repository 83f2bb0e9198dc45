"""What a step did to the documents of a shard, and how that of all shards adds up."""

import hashlib
import heapq
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from datatrove.data import Document

from teleflm.data.tokenizer import Tokenizer
from teleflm.files import write_whole

SAMPLES = 20
SAMPLE_CHARACTERS = 400
BINS = 50
"""Of the score's histogram, from 0 to 1."""
# One document in so many is tokenized to estimate the tokens of all.
_TOKENIZED = 32


@dataclass
class Flow:
    """Documents and bytes of UTF-8 text that went in and came out, and of a sample of those that
    went in the bytes and tokens."""

    documents_in: int = 0
    documents_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    sampled_bytes: int = 0
    sampled_tokens: int = 0


@dataclass(order=True)
class Sample:
    """A document that was kept or dropped; those with the smallest `order` are shown."""

    order: int
    id: str
    source: str
    text: str
    reason: str = ""


@dataclass
class Tally:
    """What a step did.

    Attributes:
        sources: the flow by source.
        reasons: documents dropped by reason.
        details: what else the step counted.
        scores: documents by score, in BINS.
        kept, dropped: samples.
        seconds: of all tasks together.
    """

    sources: dict[str, Flow] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)
    details: Counter[str] = field(default_factory=Counter)
    scores: Counter[int] = field(default_factory=Counter)
    kept: list[Sample] = field(default_factory=list)
    dropped: list[Sample] = field(default_factory=list)
    seconds: float = 0.0

    def enter(self, document: Document, meter: "TokenMeter") -> None:
        """Count a document that comes in."""
        flow = self.sources.setdefault(document.metadata["source"], Flow())
        flow.documents_in += 1
        size = text_bytes(document)
        flow.bytes_in += size
        if (tokens := meter.tokens(document)) is not None:
            flow.sampled_bytes += size
            flow.sampled_tokens += tokens

    def leave(self, document: Document, reason: str | None) -> None:
        """Count a document that is kept, or dropped for a `reason`."""
        flow = self.sources[document.metadata["source"]]
        if reason is None:
            flow.documents_out += 1
            flow.bytes_out += text_bytes(document)
            _sample(self.kept, document, "")
        else:
            self.reasons[reason] += 1
            _sample(self.dropped, document, reason)

    def add(self, other: "Tally") -> None:
        """Add what the same step did to another shard."""
        for source, flow in other.sources.items():
            own = self.sources.setdefault(source, Flow())
            for name, value in asdict(flow).items():
                setattr(own, name, getattr(own, name) + value)
        self.reasons += other.reasons
        self.details += other.details
        self.scores += other.scores
        self.kept = heapq.nsmallest(SAMPLES, self.kept + other.kept)
        self.dropped = heapq.nsmallest(SAMPLES, self.dropped + other.dropped)
        self.seconds += other.seconds

    @property
    def total(self) -> Flow:
        """The flow of all sources."""
        total = Tally()
        for flow in self.sources.values():
            total.add(Tally(sources={"": flow}))
        return total.sources.get("", Flow())

    def write(self, path: Path) -> None:
        """Write it whole."""
        path.parent.mkdir(parents=True, exist_ok=True)
        content = vars(self) | {
            "sources": {name: asdict(flow) for name, flow in self.sources.items()},
            "kept": [asdict(sample) for sample in self.kept],
            "dropped": [asdict(sample) for sample in self.dropped],
        }
        write_whole(path, json.dumps(content, ensure_ascii=False))

    @classmethod
    def read(cls, path: Path) -> "Tally":
        """What `write` wrote."""
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        content["sources"] = {name: Flow(**flow) for name, flow in content["sources"].items()}
        for name in ("reasons", "details"):
            content[name] = Counter(content[name])
        content["scores"] = Counter({int(bin): n for bin, n in content["scores"].items()})
        for name in ("kept", "dropped"):
            content[name] = [Sample(**sample) for sample in content[name]]
        return cls(**content)


class TokenMeter:
    """Counts the tokens of a sample of documents, each text once however many steps ask."""

    def __init__(self, tokenizer: str | None) -> None:
        """Raises DataError where the folder `tokenizer` holds none."""
        self._tokenizer = None if tokenizer is None else Tokenizer.load(Path(tokenizer))
        self._last: tuple[str, int | None] = ("", 0)

    def tokens(self, document: Document) -> int | None:
        """The tokens of a document, where it is in the sample."""
        if self._tokenizer is None:
            return None
        if self._last[0] is not document.text:
            sampled = _order(document) % _TOKENIZED == 0
            count = len(self._tokenizer.encode(document.text)) if sampled else None
            self._last = document.text, count
        return self._last[1]


def merged(paths: Iterable[Path]) -> Tally:
    """The sum of what was written."""
    total = Tally()
    for path in sorted(paths):
        total.add(Tally.read(path))
    return total


def text_bytes(document: Document) -> int:
    """UTF-8 bytes of the text."""
    text = document.text
    return len(text) if text.isascii() else len(text.encode())


def _sample(samples: list[Sample], document: Document, reason: str) -> None:
    """Have the document among the SAMPLES whose ids hash lowest: a choice that no worker sways."""
    order = _order(document)
    if len(samples) == SAMPLES and order >= samples[-1].order:
        return
    text = document.text[:SAMPLE_CHARACTERS]
    samples.append(Sample(order, document.id, document.metadata["source"], text, reason))
    samples.sort()
    del samples[SAMPLES:]


def _order(document: Document) -> int:
    return int.from_bytes(hashlib.blake2b(document.id.encode(), digest_size=6).digest())
