"""`data clean` against the same steps written directly as a datatrove pipeline; and what it needs.

The steps that see one document, in one process each way, in turn: datatrove's own reader, a filter
of its own for each of our steps, its writer. With --grow, instead, the whole recipe on corpora of
more and more megabytes: seconds, and the memory of the process that had most and of all together.
The text is that of FILES, with every third word (in Chinese: character) another in each copy, so
that no copy is a duplicate of another.

    python benchmarks/clean.py en=bible.jsonl zh=poetry.jsonl
    python benchmarks/clean.py en=bible.jsonl zh=poetry.jsonl --grow 100 250 500
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from datatrove.data import Document
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.filters.base_filter import BaseFilter
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter
from loguru import logger

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.timing import time_alternately
from teleflm.cleaning.clean import clean
from teleflm.cleaning.recipe import load_recipe, work_of
from teleflm.cleaning.steps import KINDS
from teleflm.data.find import find_corpus
from teleflm.data.sources import iterate_documents

_SINGLE = ["normalise", "language", "heuristics", "repetition", "mask"]
_WHOLE = [*_SINGLE[:4], "paragraphs", "minhash", "decontaminate", "mask"]
_SHARD_BYTES = 16_000_000


def copies(texts: list[str], language: str, size: int) -> Iterator[str]:
    """Text of about `size` bytes, all of it once and then again with other words."""
    space = " " if language == "en" else ""
    chance = random.Random(0)
    known = [text.split(" ") if space else list(text) for text in texts]
    words = [word for units in known[:2000] for word in units if word.strip()]
    written, copy = 0, 0
    while written < size:
        for units in known:
            changed = list(units)
            for place in range(copy % 3, len(changed) if copy else 0, 3):
                if changed[place].strip():
                    changed[place] = chance.choice(words)
            text = space.join(changed)
            yield text
            written += len(text.encode())
            if written >= size:
                return
        copy += 1


def write_corpus(folder: Path, sources: list[tuple[str, Path]], megabytes: float) -> None:
    """Shards of records, each source the same share."""
    for number, (language, path) in enumerate(sources):
        below = folder / f"{number}-{language}"
        below.mkdir(parents=True)
        texts = [document.text for document in iterate_documents(find_corpus([path]))]
        rows, held, shard = [], 0, 0
        for place, text in enumerate(copies(texts, language, int(megabytes * 1e6 / len(sources)))):
            rows.append(json.dumps({"id": f"{number}-{place}", "text": text}) + "\n")
            held += len(rows[-1])
            if held > _SHARD_BYTES:
                (below / f"{shard:04d}.jsonl").write_text("".join(rows))
                rows, held, shard = [], 0, shard + 1
        (below / f"{shard:04d}.jsonl").write_text("".join(rows))


def overrides(folder: Path, out: Path, steps: list[str], workers: int) -> list[str]:
    """A recipe for the corpus in `folder`."""
    sources = [
        {"name": below.name, "path": str(below), "language": below.name.partition("-")[2]}
        for below in sorted(folder.iterdir())
    ]
    return [
        f"out={out}",
        f"sources={json.dumps(sources)}",
        f"steps={json.dumps(steps)}",
        f"executor.workers={workers}",
        "shard_megabytes=16",
    ]


@contextmanager
def _no_bar(_: int) -> Iterator[Any]:
    yield lambda _: None


class _Filter(BaseFilter):
    """A step of ours as one would write it for datatrove."""

    def __init__(self, work: Any, dropped: Path) -> None:
        super().__init__(JsonlWriter(str(dropped), compression="zstd"))
        self.name = work.name
        self._step = work.kind(work.settings)

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        reason = self._step(doc)
        return True if reason is None else (False, reason)


def directly(folder: Path, out: Path, work: list[Any]) -> None:
    """The same steps as a datatrove pipeline, a source after the other."""
    for below in sorted(folder.iterdir()):
        language = below.name.partition("-")[2]
        LocalPipelineExecutor(
            [
                JsonlReader(
                    str(below), default_metadata={"language": language, "source": below.name}
                ),
                *(_Filter(step, out / below.name / "dropped" / step.name) for step in work),
                JsonlWriter(str(out / below.name / "text"), compression="zstd"),
            ],
            tasks=len(list(below.iterdir())),
            workers=1,
            logging_dir=str(out / below.name / "logs"),
        ).run()


def compare(folder: Path, rounds: int) -> None:
    """Print how fast the steps are that see one document, both ways."""
    logger.remove()
    number = iter(range(1000))
    recipe = load_recipe("web-en", overrides(folder, folder, _SINGLE, 1))
    work = work_of(recipe, KINDS, "")

    def ours() -> None:
        out = Path(tempfile.mkdtemp(dir=folder.parent))
        clean(load_recipe("web-en", overrides(folder, out, _SINGLE, 1)), KINDS, "", _no_bar)

    def theirs() -> None:
        directly(folder, folder.parent / f"direct-{next(number)}", work)

    times = time_alternately(ours, theirs, rounds, warmup=1)
    size = sum(path.stat().st_size for path in folder.rglob("*.jsonl")) / 1e6
    print(
        f"{size:.0f} MB, {', '.join(_SINGLE)}, one process: {size / min(times.ours):.2f} MB/s, "
        f"as a datatrove pipeline {size / min(times.theirs):.2f} MB/s; "
        f"{times.ratio:.2f} times as fast"
    )


class _Memory:
    """The memory of a process and those it started, looked at ten times a second, in bytes."""

    def __init__(self, pid: int) -> None:
        self.most_of_one, self.most_of_all = 0, 0
        self._pid, self._over = pid, threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        page = os.sysconf("SC_PAGE_SIZE")
        while not self._over.wait(0.1):
            sizes = []
            for pid in _family(self._pid):
                try:
                    sizes.append(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page)
                except (OSError, IndexError):
                    continue
            self.most_of_one = max([self.most_of_one, *sizes])
            self.most_of_all = max(self.most_of_all, sum(sizes))

    def stop(self) -> None:
        self._over.set()
        self._thread.join()


def _family(pid: int) -> list[int]:
    found = [pid]
    for one in found:
        for children in Path(f"/proc/{one}/task").glob("*/children"):
            try:
                found += map(int, children.read_text().split())
            except OSError:
                continue
    return found


def grow(folder: Path, sources: list[tuple[str, Path]], sizes: list[float], workers: int) -> None:
    """Print what the whole recipe needs for each size."""
    items = folder / "items.jsonl"
    items.write_text(json.dumps({"question": "the quick brown fox jumps over the lazy dog " * 3}))
    for megabytes in sizes:
        corpus = folder / f"corpus-{megabytes:g}"
        write_corpus(corpus, sources, megabytes)
        given = overrides(corpus, folder / f"out-{megabytes:g}", _WHOLE, workers)
        command = [sys.executable, "-m", "teleflm", "data", "clean", "web-en", *given]
        start = time.monotonic()
        process = subprocess.Popen(
            [*command, f"test_sets=[{items}]", "--json"], stdout=subprocess.PIPE, text=True
        )
        memory = _Memory(process.pid)
        out, _ = process.communicate()
        seconds = time.monotonic() - start
        memory.stop()
        if process.returncode:
            sys.exit(process.returncode)
        summary = json.loads(out)
        documents = sum(source["documents"] for source in summary["sources"].values())
        kept = sum(source["kept_documents"] for source in summary["sources"].values())
        print(
            f"{megabytes:g} MB, {documents:,} documents, {kept:,} kept, {workers} workers: "
            f"{seconds:.0f} s, {megabytes / seconds:.2f} MB/s, at most "
            f"{memory.most_of_one / 1e6:.0f} MB in a process and "
            f"{memory.most_of_all / 1e6:.0f} MB in all",
            flush=True,
        )


def main(command_line: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("files", nargs="+", metavar="LANGUAGE=FILE")
    parser.add_argument("--megabytes", type=float, default=20, help="of text to compare on")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--grow", type=float, nargs="*", help="megabytes of text")
    parser.add_argument("--workers", type=int, default=2, help="with --grow")
    arguments = parser.parse_args(command_line)
    sources = [(file.partition("=")[0], Path(file.partition("=")[2])) for file in arguments.files]
    with tempfile.TemporaryDirectory() as name:
        if arguments.grow:
            grow(Path(name), sources, arguments.grow, arguments.workers)
        else:
            write_corpus(Path(name) / "corpus", sources, arguments.megabytes)
            compare(Path(name) / "corpus", arguments.rounds)


if __name__ == "__main__":
    main()
