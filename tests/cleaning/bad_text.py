"""Bad text, made by machine out of planted spam and of good text, the same for the same seed."""

import random
import re
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import yaml

PLANTED = Path(__file__).parent / "planted"
_UNIT = re.compile(r"[A-Za-z']+|[0-9]+|[^\sA-Za-z0-9]")
_SENTENCE = re.compile(r"(?<=[。！？!?；;])|(?<=\. )|\n")


def planted(language: str, half: str) -> list[str]:
    """Spam and boilerplate of `language`, the half that was `seen` when rules were written or
    the other."""
    kinds = yaml.safe_load((PLANTED / f"{language}.yaml").read_text(encoding="utf-8"))[half]
    return [text for texts in kinds.values() for text in texts]


def clean(language: str) -> list[str]:
    """Good text that speaks of what spam speaks of."""
    return yaml.safe_load((PLANTED / f"{language}_clean.yaml").read_text(encoding="utf-8"))["clean"]


def _joined(units: list[str]) -> str:
    """As they are written: a space where Latin letters or digits meet."""
    text = ""
    for unit in units:
        text += " " * (text[-1:].isascii() and unit[0].isascii() and unit[0].isalnum()) + unit
    return text.strip()


def mixed(rng: random.Random, texts: list[str]) -> str:
    """Sentences of two or three of `texts`."""
    parts = [s for text in rng.sample(texts, rng.randint(2, 3)) for s in _SENTENCE.split(text) if s]
    rng.shuffle(parts)
    return " ".join(parts[: rng.randint(2, 12)])


def gibberish(rng: random.Random, text: str) -> str:
    """The characters of `text` in any order, or random ones of its script."""
    if rng.random() < 0.5:
        characters = list(text)
        rng.shuffle(characters)
        return "".join(characters)
    if any("\u4e00" <= c <= "\u9fff" for c in text):
        return "".join(chr(rng.randint(0x4E00, 0x8FFF)) for _ in text)
    letters = "abcdefghijklmnopqrstuvwxyz"
    return " ".join(
        "".join(rng.choices(letters, k=rng.randint(2, 9))) for _ in range(len(text) // 6 + 2)
    )


def salad(rng: random.Random, text: str) -> str:
    """The words (in Chinese: characters) of `text` in any order."""
    units = _UNIT.findall(text)
    rng.shuffle(units)
    return _joined(units)


class Markov:
    """Text in which each word (in Chinese: character) only knows the one before it."""

    def __init__(self, texts: list[str]) -> None:
        self._after: dict[str, list[str]] = defaultdict(list)
        for text in texts:
            units = _UNIT.findall(text)
            for one, other in pairwise(units):
                self._after[one].append(other)

    def write(self, rng: random.Random, units: int) -> str:
        """As many words or characters."""
        written = [rng.choice(sorted(self._after))]
        while len(written) < units:
            after = self._after.get(written[-1]) or sorted(self._after)
            written.append(rng.choice(after))
        return _joined(written)


def bad_texts(seed: int, number: int, good: list[str], spam: list[str]) -> dict[str, list[str]]:
    """`number` texts of each kind, in the words of `good` and of `spam`."""
    rng = random.Random(seed)
    markov = Markov(good)
    base = [rng.choice(good)[:1000] for _ in range(number)]
    return {
        "spam": [mixed(rng, spam) for _ in range(number)],
        "gibberish": [gibberish(rng, text) for text in base],
        "salad": [salad(rng, text) for text in base],
        "markov": [markov.write(rng, len(_UNIT.findall(text))) for text in base],
    }
