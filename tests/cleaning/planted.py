"""Runs a corpus step as a frame would, and changes real-looking text by known amounts."""

import random
from collections.abc import Sequence
from pathlib import Path

from datatrove.data import Document

from teleflm.cleaning.step import CorpusStep

COMMON = ["the", "of", "and", "to", "in", "a", "is", "that", "was", "he", "for", "it", "with", "as"]


def words(seed: int, count: int, language: str = "en") -> list[str]:
    """Words (in Chinese: characters) of made-up text, the common ones often."""
    draw = random.Random(seed)
    if language == "zh":
        return [chr(0x4E00 + min(int(draw.expovariate(1 / 400)), 5000)) for _ in range(count)]
    made = ["".join(draw.choices("etaoinshrdlu", k=draw.randint(3, 9))) for _ in range(count)]
    return [draw.choice(COMMON) if draw.random() < 0.5 else word for word in made]


def changed(units: Sequence[str], share: float, seed: int) -> list[str]:
    """`units` with that share of them replaced, at random places."""
    draw = random.Random(seed)
    out = list(units)
    for place in draw.sample(range(len(out)), round(share * len(out))):
        out[place] = (
            f"{out[place]}x" if out[place].isascii() else chr(0x8000 + draw.randrange(4000))
        )
    return out


def written(units: Sequence[str], language: str = "en") -> str:
    """Text of `units`, with punctuation."""
    gap, stop = (" ", ". ") if language == "en" else ("", "。")
    lines = [gap.join(units[at : at + 11]) for at in range(0, len(units), 11)]
    return stop.join(lines)


def record(text: str, identity: str, language: str = "en") -> Document:
    """A document as the frame makes them."""
    return Document(text, identity, metadata={"language": language, "source": "s", "domain": "d"})


def run(
    step: CorpusStep,
    folder: Path,
    shards: Sequence[Sequence[Document]],
    corpus_bytes: int = 1,
    order: int | None = None,
) -> dict[str, str | None]:
    """The verdict on each document, by id; `order` shuffles all that may run in any order."""
    folder.mkdir(parents=True, exist_ok=True)

    def shuffled(count: int) -> list[int]:
        numbers = list(range(count))
        if order is not None:
            random.Random(order).shuffle(numbers)
        return numbers

    for shard in shuffled(len(shards)):
        signer = step.signer(folder, shard)
        for document in shards[shard]:
            signer.add(document)
        signer.close()
    for work in step.rounds(folder, len(shards), corpus_bytes):
        for task in shuffled(work.tasks):
            work.work(task)
    verdicts = {}
    for shard in shuffled(len(shards)):
        judge = step.judge(folder, shard)
        for document in shards[shard]:
            verdicts[document.id] = judge(document)
    return verdicts
