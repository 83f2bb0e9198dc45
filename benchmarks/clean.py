"""`data clean` against the same steps written directly as a datatrove pipeline; and what it needs.

The steps that see one document, and MinHash, with one worker and with two, both ways in turn:
datatrove's own reader, writer and executor, and a filter of its own for the work of each step of
ours. With --grow, instead, the whole recipe on corpora of more and more megabytes: seconds, and the
memory of the process that had most and of all together. The text is that of FILES, with every
third word (in Chinese: character) another in each copy, so that no copy is a duplicate of another.

    python benchmarks/clean.py en=bible.jsonl zh=poetry.jsonl
    python benchmarks/clean.py en=bible.jsonl zh=poetry.jsonl --workers 2 --grow 100 250 500
"""

import argparse
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from datatrove.data import Document, DocumentsPipeline
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.filters.base_filter import BaseFilter
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter
from loguru import logger

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.memory import Memory
from benchmarks.timing import time_alternately
from teleflm.cleaning.clean import clean
from teleflm.cleaning.recipe import Work, load_recipe, work_of
from teleflm.cleaning.step import CorpusStep, Judge, Round, Step
from teleflm.cleaning.steps import KINDS
from teleflm.data.find import find_corpus
from teleflm.data.sources import iterate_documents

_SINGLE = ["normalise", "language", "heuristics", "repetition", "mask"]
_COMPARED = ["extract", *_SINGLE, "minhash"]
_WHOLE = ["extract", *_SINGLE[:4], "paragraphs", "minhash", "decontaminate", "mask"]
_SHARD_BYTES = 16_000_000
# Small, so that two workers have about as much to do each.
_PART_BYTES = 2_000_000


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
            if copy:
                old = changed[copy % 3 :: 3]
                new = chance.choices(words, k=len(old))
                changed[copy % 3 :: 3] = [
                    b if a.strip() else a for a, b in zip(old, new, strict=True)
                ]
            text = space.join(changed)
            yield text
            written += len(text.encode())
            if written >= size:
                return
        copy += 1


def write_corpus(
    folder: Path, sources: list[tuple[str, Path]], megabytes: float, shard_bytes: int
) -> None:
    """Shards of records, each source the same share."""
    for number, (language, path) in enumerate(sources):
        below = folder / f"{number}-{language}"
        below.mkdir(parents=True)
        texts = [document.text for document in iterate_documents(find_corpus([path]))]
        rows: list[bytes] = []
        held, shard = 0, 0
        for place, text in enumerate(copies(texts, language, int(megabytes * 1e6 / len(sources)))):
            record = {"id": f"{number}-{place}", "text": text}
            rows.append(json.dumps(record, ensure_ascii=False).encode() + b"\n")
            held += len(rows[-1])
            if held > shard_bytes:
                (below / f"{shard:04d}.jsonl").write_bytes(b"".join(rows))
                rows, held, shard = [], 0, shard + 1
        if rows:
            (below / f"{shard:04d}.jsonl").write_bytes(b"".join(rows))


def overrides(
    folder: Path, out: Path, steps: list[str], workers: int, shard_bytes: int
) -> list[str]:
    """A recipe for the corpus in `folder`, each of whose files is a shard."""
    sources = [
        {"name": below.name, "path": str(below), "language": below.name.partition("-")[2]}
        for below in sorted(folder.iterdir())
    ]
    return [
        f"out={out}",
        f"sources={json.dumps(sources)}",
        f"steps={json.dumps(steps)}",
        f"executor.workers={workers}",
        f"shard_megabytes={shard_bytes // 10**6}",
    ]


@contextmanager
def _no_bar(_: int) -> Iterator[Any]:
    yield lambda _: None


class _Filter(BaseFilter):
    """A step of ours as one would write it for datatrove."""

    def __init__(self, work: Work, out: Path) -> None:
        super().__init__(JsonlWriter(str(out / "dropped" / work.name), compression="zstd"))
        self.name, self._work, self._out = work.name, work, out
        self._judge: Step | Judge | None = None

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        step = self._work.kind(self._work.settings)
        if isinstance(step, CorpusStep):
            self._judge = step.judge(self._out / self.name, rank)
        else:
            self._judge = step
        yield from super().run(data, rank, world_size)

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        assert self._judge is not None
        reason = self._judge(doc)
        return True if reason is None else (False, reason)


class _Sign(PipelineStep):
    """Signatures of a corpus step of ours."""

    def __init__(self, work: Work, out: Path) -> None:
        super().__init__()
        self.name, self._work, self._out = work.name, work, out

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        step = self._work.kind(self._work.settings)
        assert isinstance(step, CorpusStep)
        signer = step.signer(self._out / self.name, rank)
        for document in data:
            signer.add(document)
            yield document
        signer.close()


class _Round(PipelineStep):
    """What a corpus step of ours does between signatures and verdict."""

    def __init__(self, work: Round) -> None:
        super().__init__()
        self.name, self._work = work.name, work.work

    def run(
        self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1
    ) -> DocumentsPipeline:
        self._work(rank)
        yield from ()


def _record(_: Any, data: dict[str, Any], path: str, place: int | str) -> dict[str, Any]:
    source = path.split("/")[0]
    known = {"language": source.partition("-")[2], "source": source, "domain": source, "weight": 1}
    return {"text": data["text"], "id": data["id"], "metadata": known}


def directly(folder: Path, out: Path, steps: list[Work], workers: int) -> None:
    """The same steps as datatrove pipelines; the last of `steps` sees the whole corpus."""
    files = list(folder.rglob("*.jsonl"))
    numbers = iter(range(100))

    def run(tasks: int, *pipeline: PipelineStep) -> None:
        logs = str(out / "logs" / str(next(numbers)))
        LocalPipelineExecutor(list(pipeline), tasks, workers, logging_dir=logs).run()

    *single, last = steps
    whole = last.kind(last.settings)
    assert isinstance(whole, CorpusStep)
    run(
        len(files),
        JsonlReader(str(folder), adapter=_record),
        *(_Filter(step, out) for step in single),
        _Sign(last, out),
        JsonlWriter(str(out / "signed"), compression="zstd"),
    )
    size = sum(file.stat().st_size for file in files)
    for part in whole.rounds(out / last.name, len(files), size):
        run(part.tasks, _Round(part))
    run(
        len(files),
        JsonlReader(str(out / "signed"), add_file_path=False),
        _Filter(last, out),
        JsonlWriter(str(out / "text"), "${source}/${rank}.jsonl.zst", compression="zstd"),
    )


def compare(folder: Path, rounds: int, workers: int) -> None:
    """Print how fast the steps of `_COMPARED` are, both ways."""
    numbers = iter(range(1000))
    recipe = load_recipe("web-en", overrides(folder, folder, _COMPARED, workers, _PART_BYTES))
    steps = work_of(recipe, KINDS, "")
    outs: dict[str, Path] = {}

    def ours() -> None:
        logger.disable("datatrove")
        out = outs["ours"] = folder.parent / f"ours-{workers}-{next(numbers)}"
        given = overrides(folder, out, _COMPARED, workers, _PART_BYTES)
        clean(load_recipe("web-en", given), KINDS, "", _no_bar)

    def theirs() -> None:
        logger.enable("datatrove")
        out = outs["theirs"] = folder.parent / f"direct-{workers}-{next(numbers)}"
        directly(folder, out, steps, workers)

    with open(os.devnull, "w") as nowhere:
        logger.remove()
        logger.add(nowhere)
        times = time_alternately(ours, theirs, rounds, warmup=1)
    kept, also = (_ids(out / "text") for out in outs.values())
    assert kept == also, "both are to keep the same documents"
    size = sum(path.stat().st_size for path in folder.rglob("*.jsonl")) / 1e6
    ratios = ", ".join(f"{ratio:.2f}" for ratio in times.ratios)
    print(
        f"| {workers} | {size / min(times.ours):.2f} | {size / min(times.theirs):.2f} "
        f"| {times.ratio:.2f} | {ratios} |",
        flush=True,
    )


def _ids(folder: Path) -> set[str]:
    """Of the documents in `folder`."""
    return {document.id for document in JsonlReader(str(folder))()}


def _processor_seconds() -> float:
    """Of all processes that have ended below this one."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def grow(
    folder: Path,
    sources: list[tuple[str, Path]],
    sizes: list[float],
    steps: list[str],
    workers: int,
) -> None:
    """Print what `steps` need for each size."""
    print(f"{workers} workers: {', '.join(steps)}\n")
    print("| MB | documents | kept | s | processor s | a MB | most MB in a process | in all |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    items = folder / "items.jsonl"
    items.write_text(json.dumps({"question": "the quick brown fox jumps over the lazy dog " * 3}))
    for megabytes in sizes:
        corpus = folder / f"corpus-{megabytes:g}"
        write_corpus(corpus, sources, megabytes, _SHARD_BYTES)
        out = folder / f"out-{megabytes:g}"
        given = overrides(corpus, out, steps, workers, _SHARD_BYTES)
        if "decontaminate" in steps:
            given.append(f"test_sets=[{items}]")
        command = [sys.executable, "-m", "teleflm", "data", "clean", "web-en", *given]
        start, used = time.monotonic(), _processor_seconds()
        process = subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE, text=True)
        memory = Memory(process.pid)
        told, _ = process.communicate()
        seconds, used = time.monotonic() - start, _processor_seconds() - used
        memory.stop()
        if process.returncode:
            sys.exit(process.returncode)
        summary = json.loads(told)
        documents = sum(source["documents"] for source in summary["sources"].values())
        kept = sum(source["kept_documents"] for source in summary["sources"].values())
        print(
            f"| {megabytes:g} | {documents:,} | {kept:,} | {seconds:.0f} | {used:.0f} "
            f"| {used / megabytes:.2f} | {memory.most_of_one / 1e6:.0f} "
            f"| {memory.most_of_all / 1e6:.0f} |",
            flush=True,
        )
        shutil.rmtree(corpus)
        shutil.rmtree(out)


def main(command_line: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("files", nargs="+", metavar="LANGUAGE=FILE")
    parser.add_argument("--megabytes", type=float, default=20, help="of text to compare on")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--grow", type=float, nargs="*", help="megabytes of text")
    parser.add_argument("--steps", nargs="+", default=_WHOLE, help="with --grow")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="processes")
    arguments = parser.parse_args(command_line)
    sources = [(file.partition("=")[0], Path(file.partition("=")[2])) for file in arguments.files]
    with tempfile.TemporaryDirectory() as name:
        if arguments.grow:
            for workers in arguments.workers:
                grow(Path(name), sources, arguments.grow, arguments.steps, workers)
        else:
            write_corpus(Path(name) / "corpus", sources, arguments.megabytes, _PART_BYTES)
            print(f"{arguments.megabytes:g} MB: {', '.join(_COMPARED)}\n")
            print("| workers | data clean, MB/s | datatrove directly, MB/s | ratio | of pairs |")
            print("|---|---|---|---|---|", flush=True)
            for workers in arguments.workers:
                compare(Path(name) / "corpus", arguments.rounds, workers)


if __name__ == "__main__":
    main()
