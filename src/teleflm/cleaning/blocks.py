"""The blocks of datatrove's pipelines that our steps run in.

A task is a shard, by number. Between two phases its documents lie in a file of that number, written
and read by datatrove's own writer and reader, in the order in which they came.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from datatrove.data import Document, DocumentsPipeline
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.readers.jsonl import JsonlReader
from datatrove.pipeline.writers.jsonl import JsonlWriter

from teleflm.cleaning.folders import Folders
from teleflm.cleaning.reading import ShardReader
from teleflm.cleaning.recipe import Work
from teleflm.cleaning.shards import Shard
from teleflm.cleaning.step import CorpusStep, Judge, Round, Step
from teleflm.cleaning.tally import Flow, Tally, TokenMeter

READ = "read"
"""The tally of what was read, beside those of the steps."""
EMPTY = "nothing left"
"""Why a document is dropped of which a step left no text."""


class Read(PipelineStep):
    """Reads the sources' files."""

    type, name = "reader", "sources"

    def __init__(self, shards: list[Shard], folders: Folders, tokenizer: str | None) -> None:
        super().__init__()
        self._shards, self._folders, self._tokenizer = shards, folders, tokenizer

    def run(
        self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1
    ) -> DocumentsPipeline:
        """The documents of shard `rank`."""
        reader = ShardReader(self._shards[rank], self._folders.report_progress)
        # There even where it turns out to have no text.
        tally = Tally(sources={self._shards[rank].source.name: Flow()})
        meter = TokenMeter(self._tokenizer)
        for document in reader.documents():
            tally.enter(document, meter)
            tally.leave(document, None)
            yield document
        tally.details["without text"] = reader.without_text
        tally.write(self._folders.tally(READ, rank))


class ReadAgain(PipelineStep):
    """Reads what the phase before wrote."""

    type, name = "reader", "documents"

    def __init__(self, shards: list[Shard], folders: Folders, folder: Path) -> None:
        super().__init__()
        self._shards, self._folders, self._folder = shards, folders, folder

    def run(
        self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1
    ) -> DocumentsPipeline:
        """The documents of shard `rank`, in their order."""
        # A shard without documents has no file.
        if (path := self._folder / f"{rank:05d}.jsonl.zst").exists():
            yield from JsonlReader(str(self._folder), add_file_path=False).read_file(path.name)
        self._folders.report_progress(self._shards[rank].bytes)


class Write(JsonlWriter):
    """Writes a shard's documents, in a file of the shard's number, or one for each source."""

    def __init__(self, folder: Path, *, by_source: bool = False) -> None:
        name = "${rank}.jsonl.zst"
        super().__init__(str(folder), name, compression="zstd")
        self._by_source = by_source

    def _get_output_filename(self, document: Document, rank: int | str = 0, **_: Any) -> str:
        # datatrove's own fills its template from the metadata, where a record may have a `rank`.
        name = f"{rank:0>5}.jsonl.zst"
        return f"{document.metadata['source']}/{name}" if self._by_source else name

    def _default_adapter(self, document: Document) -> dict[str, Any]:
        record = {"text": document.text, "id": document.id, "metadata": document.metadata}
        if (reason := document.metadata.pop(_REASON, None)) is not None:
            record["reason"] = reason
        return record


# A dropped document takes its reason along to the writer.
_REASON = "teleflm reason"


class Judging(PipelineStep):
    """Has each document judged, counts what comes of it, and writes what is dropped aside."""

    type = "step"

    def __init__(self, work: Work, folders: Folders, tokenizer: str | None) -> None:
        super().__init__()
        self.name = work.name
        self._work, self._folders, self._tokenizer = work, folders, tokenizer

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        """The documents that are kept."""
        judge, tally = self._judge(rank), Tally()
        meter = TokenMeter(self._tokenizer)
        with Write(self._folders.dropped(self.name)) as dropped:
            for document in data or ():
                tally.enter(document, meter)
                start = time.perf_counter()
                reason = judge(document)
                tally.seconds += time.perf_counter() - start
                if reason is None and not document.text.strip():
                    reason = EMPTY
                tally.leave(document, reason)
                if reason is None:
                    yield document
                else:
                    document.metadata[_REASON] = reason
                    dropped.write(document, rank)
        tally.details.update(judge.details)
        if isinstance(judge, Step):
            tally.scores = judge.scores
        tally.write(self._folders.tally(self.name, rank))

    def _judge(self, rank: int) -> Step | Judge:
        # Made in the task: what a step holds need not be pickled.
        step = self._work.kind(self._work.settings)
        if isinstance(step, CorpusStep):
            return step.judge(self._folders.step(self.name), rank)
        return step


class Signing(PipelineStep):
    """Lets documents pass, and keeps what a corpus step needs of them."""

    type = "signatures"

    def __init__(self, work: Work, folders: Folders) -> None:
        super().__init__()
        self.name = work.name
        self._work, self._folders = work, folders

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        """All documents."""
        step = self._work.kind(self._work.settings)
        assert isinstance(step, CorpusStep)
        signer, tally = step.signer(self._folders.step(self.name), rank), Tally()
        for document in data or ():
            start = time.perf_counter()
            signer.add(document)
            tally.seconds += time.perf_counter() - start
            yield document
        signer.close()
        tally.write(self._folders.tally(f"{self.name}.signed", rank))


class Rounding(PipelineStep):
    """A task of a round of a corpus step."""

    type = "round"

    def __init__(self, work: Round, folders: Folders, step: str) -> None:
        super().__init__()
        self.name = work.name
        self._work, self._folders, self._step = work, folders, step

    def run(
        self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1
    ) -> DocumentsPipeline:
        """No documents."""
        start = time.perf_counter()
        self._work.work(rank)
        tally = Tally(seconds=time.perf_counter() - start)
        tally.write(self._folders.tally(f"{self._step}.{self.name}", rank))
        yield from ()


class Finish(PipelineStep):
    """The last task of all, which gives the result its name."""

    type, name = "report", "report"

    def __init__(self, finish: Callable[[], object]) -> None:
        super().__init__()
        self._finish = finish

    def run(
        self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1
    ) -> Iterator[Document]:
        """No documents."""
        self._finish()
        yield from ()
