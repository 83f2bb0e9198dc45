"""A recipe as phases: what can be done in one pass over the documents is done in one.

A corpus step ends a pass, as it judges nothing before it has seen every document. So the recipe
[extract, language, minhash, mask] becomes
    1. read, extract, language, take the signatures of minhash, write     a task a shard
    2. the rounds of minhash                                              tasks of its own
    3. read again, judge by minhash, mask, write the result               a task a shard
    4. the report                                                         one task
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from datatrove.pipeline.base import PipelineStep

from teleflm.cleaning.blocks import Finish, Judging, Read, ReadAgain, Rounding, Signing, Write
from teleflm.cleaning.folders import Folders
from teleflm.cleaning.recipe import Work
from teleflm.cleaning.shards import Sources
from teleflm.cleaning.step import CorpusStep


@dataclass
class Phase:
    """One of datatrove's pipelines, and what it is for."""

    name: str
    tasks: int
    pipeline: list[PipelineStep] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    """What each task counts for progress, in bytes of the sources, where it reads documents."""


def phases_of(
    steps: list[Work],
    sources: Sources,
    folders: Folders,
    tokenizer: str | None,
    finish: Callable[[], None],
) -> list[Phase]:
    """All phases, in order."""
    shards, sizes = len(sources.shards), [shard.bytes for shard in sources.shards]
    over = Phase("reading", shards, [Read(sources.shards, folders, tokenizer)], sizes)
    phases = [over]
    for work in steps:
        step = work.kind(work.settings) if issubclass(work.kind, CorpusStep) else None
        if isinstance(step, CorpusStep):
            documents = folders.documents(len(phases))
            over.pipeline += [Signing(work, folders), Write(documents)]
            rounds = step.rounds(folders.step(work.name), shards, sources.bytes)
            for part in rounds:
                name = f"{work.name}, {part.name}"
                phases.append(Phase(name, part.tasks, [Rounding(part, folders, work.name)]))
            again = ReadAgain(sources.shards, folders, documents)
            over = Phase(f"after {work.name}", shards, [again], sizes)
            phases.append(over)
        over.pipeline.append(Judging(work, folders, tokenizer))
    over.pipeline.append(Write(folders.new_text, by_source=True))
    return [*phases, Phase("report", 1, [Finish(finish)])]
