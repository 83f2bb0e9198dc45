"""`data prepare` by a recipe's executor: other machines tokenize, the last task deals in order.

A task is a group of files, as with the worker processes of one machine, and what it leaves is the
same. So the store is what one process would have written.
"""

import json
import shutil
from functools import partial
from pathlib import Path

from datatrove.data import DocumentsPipeline
from datatrove.pipeline.base import PipelineStep

from teleflm.cleaning.blocks import Finish
from teleflm.cleaning.phases import Phase
from teleflm.cleaning.recipe import Executor, default_workers
from teleflm.cleaning.remote import check_executor, submit
from teleflm.data.batches import START
from teleflm.data.find import CorpusFile
from teleflm.data.sources import Reading, note
from teleflm.data.spill import is_spill_of, write_spill
from teleflm.data.store import Work, check_share, prepare, work_of
from teleflm.data.tokenizer import Tokenizer
from teleflm.data.workers import Group, groups_of
from teleflm.errors import DataError
from teleflm.files import write_whole

_WORK = "work.json"


def tasks_folder(out: Path) -> Path:
    """Where tasks leave their tokens until the store is there, and datatrove its logs."""
    return out.with_name(f"{out.name}.tasks")


def prepare_by(
    executor: Executor,
    paths: list[Path],
    tokenizer_dir: Path,
    out: Path,
    *,
    reading: Reading,
    held_out: float,
    force: bool,
) -> list[str]:
    """Hand what `prepare` does to Slurm, or have Ray do it. What earlier tasks did is not done
    again.

    Returns:
        The numbers of Slurm's jobs; none where Ray has done the work.

    Raises:
        ConfigError: an option that the executor does not have.
        DataError: as `prepare`, as far as it is known before a document is read.
        MachineError: Slurm does not take a job.
        MissingExtraError: Ray is not installed.
    """
    check_share(held_out)
    out = Path(out).absolute()
    check_executor(executor, out)
    paths = [path.absolute() for path in paths]
    work = work_of(paths, tokenizer_dir.absolute(), out, reading, force)
    for line in work.corpus.left_out:
        note(line)
    folder = _folder(work)
    spills, files = folder / "spills", work.corpus.files
    left = [
        group
        for group in groups_of(files, START)
        if not is_spill_of(spills / group.name, files[group.first : group.end])
    ]
    deal = partial(_deal, paths, work.tokenizer_dir, out, spills, reading, held_out, force)
    tokenize = Phase("tokenize", len(left), [Tokenizing(work, left, spills)])
    phases = [*([tokenize] if left else ()), Phase("store", 1, [Finish(deal)])]
    # Tasks that are done are known by what they left, so each time has marks of its own.
    logs = folder / f"logs-{1 + sum(1 for _ in folder.glob('logs-*'))}"
    return submit(executor, "teleflm prepare", phases, lambda phase: logs / f"phase-{phase}")


def _deal(
    paths: list[Path],
    tokenizer_dir: Path,
    out: Path,
    spills: Path,
    reading: Reading,
    held_out: float,
    force: bool,
) -> None:
    prepare(
        paths,
        tokenizer_dir,
        out,
        reading=reading,
        held_out=held_out,
        force=force,
        # For what has changed since, or could not be read.
        workers=default_workers(),
        spills=spills,
    )
    shutil.rmtree(spills)


def _folder(work: Work) -> Path:
    """The folder of tasks, without what is left of another work."""
    folder, known = tasks_folder(work.out), json.dumps(work.known)
    mark = folder / _WORK
    if folder.exists() and not mark.is_file():
        raise DataError(
            f"{folder}: the tasks of {work.out.name} would lie there, and something else does; "
            "rename it, or give another --out"
        )
    if mark.is_file() and mark.read_text(encoding="utf-8") != known:
        shutil.rmtree(folder)
    (folder / "spills").mkdir(parents=True, exist_ok=True)
    write_whole(mark, known)
    return folder


class Tokenizing(PipelineStep):
    """Tokenizes a group of files."""

    type, name = "tokens", "tokenize"

    def __init__(self, work: Work, groups: list[Group], spills: Path) -> None:
        super().__init__()
        self._files: list[list[CorpusFile]] = [
            work.corpus.files[group.first : group.end] for group in groups
        ]
        self._groups, self._spills = groups, spills
        self._reading, self._dtype = work.reading, work.dtype
        self._tokenizer_dir = work.tokenizer_dir

    def run(
        self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1
    ) -> DocumentsPipeline:
        """No documents."""
        tokenizer = Tokenizer.load(self._tokenizer_dir)
        path = self._spills / self._groups[rank].name
        write_spill(path, self._files[rank], 0, self._reading, tokenizer, self._dtype)
        yield from ()
