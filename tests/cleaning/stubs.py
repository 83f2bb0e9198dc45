"""Steps for tests of the frame; in a file of their own, as workers import them."""

import json
import os
import signal
from collections import Counter
from pathlib import Path

from datatrove.data import Document

from teleflm.cleaning.step import CorpusStep, Judge, Round, Signer, Step
from teleflm.config.base import Strict


class ShortSettings(Strict):
    """The least length."""

    least: int = 20


class Short(Step):
    """Drops what is short, and takes trailing blanks off the rest."""

    name = "short"
    Settings = ShortSettings

    def __init__(self, settings: ShortSettings) -> None:
        super().__init__(settings)
        self._least = settings.least

    def __call__(self, document: Document) -> str | None:
        stripped = document.text.rstrip()
        self.details["blanks"] += len(document.text) - len(stripped)
        document.text = stripped
        return "too short" if len(stripped) < self._least else None


class TwiceSettings(Strict):
    """A folder: who finds it removes it, and kills itself."""

    killer: str | None = None


class Twice(CorpusStep):
    """Drops a text that stood earlier in the corpus."""

    name = "twice"
    Settings = TwiceSettings

    def __init__(self, settings: TwiceSettings) -> None:
        self._killer = settings.killer

    def signer(self, folder: Path, shard: int) -> Signer:
        return _Signer(folder / f"{shard}.json")

    def rounds(self, folder: Path, shards: int, corpus_bytes: int) -> list[Round]:
        return [Round("all", 1, _All(folder, shards, self._killer))]

    def judge(self, folder: Path, shard: int) -> Judge:
        return _Judge(folder, shard)


class _Signer:
    def __init__(self, path: Path) -> None:
        self._path, self._texts = path, list[str]()

    def add(self, document: Document) -> None:
        self._texts.append(document.text)

    def close(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(json.dumps(self._texts))


class _All:
    def __init__(self, folder: Path, shards: int, killer: str | None) -> None:
        self._folder, self._shards, self._killer = folder, shards, killer

    def __call__(self, task: int) -> None:
        if self._killer and Path(self._killer).exists():
            Path(self._killer).rmdir()
            os.kill(os.getpid(), signal.SIGKILL)
        seen: set[str] = set()
        for shard in range(self._shards):
            verdict = []
            for text in json.loads((self._folder / f"{shard}.json").read_text()):
                verdict.append(text in seen)
                seen.add(text)
            (self._folder / f"{shard}.verdict").write_text(json.dumps(verdict))


class _Judge:
    def __init__(self, folder: Path, shard: int) -> None:
        self.details: Counter[str] = Counter()
        self._verdict = iter(json.loads((folder / f"{shard}.verdict").read_text()))

    def __call__(self, document: Document) -> str | None:
        return "a copy" if next(self._verdict) else None


KINDS = {kind.name: kind for kind in (Short, Twice)}
