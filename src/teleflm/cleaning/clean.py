"""`teleflm data clean`: a recipe, done from where it was left."""

import json
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

from teleflm.cleaning.executors import Local, held
from teleflm.cleaning.finish import FORMAT, finish, read_summary
from teleflm.cleaning.folders import Folders
from teleflm.cleaning.phases import Phase, phases_of
from teleflm.cleaning.recipe import Kinds, Recipe, Work, work_of
from teleflm.cleaning.remote import check_executor, submit
from teleflm.cleaning.shards import Sources, find_shards, paths_of
from teleflm.cleaning.step import Step
from teleflm.cleaning.stopping import terminable
from teleflm.cleaning.tally import TokenMeter
from teleflm.data.find import find_corpus
from teleflm.data.sources import note
from teleflm.data.unpack import Progress
from teleflm.errors import ConfigError
from teleflm.files import naming_full_disk, write_whole

Bar = Callable[[int], AbstractContextManager[Progress]]
"""Shows the progress of so many bytes."""


def clean(
    recipe: Recipe, kinds: Kinds, source: str, bar: Bar, *, force: bool = False
) -> dict[str, Any] | list[str]:
    """Do what a recipe, read from `source`, says with steps of these `kinds`.

    What a stopped run of the same recipe did is not done again.

    Returns:
        The content of clean.json; where Slurm does the work, the numbers of its jobs.

    Raises:
        ConfigError: a recipe that makes no sense, or a folder `out` of another one.
        DataError: sources or test sets that cannot be read.
        MachineError: a full disk, or a worker that died.
        RunLockedError: another process works in `out`.
        StoppedError: SIGTERM.
    """
    steps = work_of(recipe, kinds, source)
    sources = find_shards(recipe.sources, recipe.shard_megabytes * 10**6)
    folders = Folders(Path(recipe.out))
    _check_apart(folders, recipe)
    identity = _identity(recipe, steps, sources)
    _check_free(folders)
    check_executor(recipe.executor, folders.out)
    # Before anything is written: a recipe that lacks something is no work that another one finds.
    notes = _notes(steps, recipe) if force or not folders.clean.exists() else []
    with terminable(), naming_full_disk(folders.out), held(folders):
        if force:
            _clear(folders)
        if not _is_done(folders, identity, recipe):
            for line in (*sources.left_out, *notes):
                note(line)
            last = partial(finish, folders, steps, source, len(sources.shards))
            phases = phases_of(steps, sources, folders, recipe.tokenizer, last)
            if recipe.executor.kind == "local":
                _do(phases, folders, recipe, bar)
            else:
                jobs = submit(recipe.executor, "teleflm clean", phases, folders.logs)
                if recipe.executor.kind == "slurm":
                    return jobs
        for path in folders.work.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
    return read_summary(folders.clean)


def _do(phases: list[Phase], folders: Folders, recipe: Recipe, bar: Bar) -> None:
    with (
        bar(sum(sum(phase.sizes) for phase in phases)) as progress,
        Local(folders, recipe.executor.workers, progress) as local,
    ):
        for number, phase in enumerate(phases, start=1):
            local.run(phase, number)
            if phase.sizes:
                # Its own writing is what the next pass reads; what it read is needed no more.
                _remove_documents(folders, before=number)


def _remove_documents(folders: Folders, before: int) -> None:
    for number in range(before):
        shutil.rmtree(folders.documents(number), ignore_errors=True)


def _identity(recipe: Recipe, steps: list[Work], sources: Sources) -> str:
    """What the result follows from: the recipe, but for who does the work, and all files."""
    content = recipe.model_dump(mode="json", include={"sources", "tokenizer", "shard_megabytes"})
    settings = {work.name: work.settings.model_dump(mode="json") for work in steps}
    files = [file.path for shard in sources.shards for file in shard.files]
    files += [file.path for file in find_corpus(map(Path, recipe.test_sets)).files]
    for values in settings.values():
        files += [Path(value) for value in values.values() if isinstance(value, str)]
    stats = [
        [str(path.absolute()), path.stat().st_size, path.stat().st_mtime_ns]
        for path in files
        if path.is_file()
    ]
    known = {"format": FORMAT, "recipe": content, "steps": settings, "files": stats}
    return json.dumps(known, indent=1)


def _notes(steps: list[Work], recipe: Recipe) -> list[str]:
    """Make each step once, so that what it cannot do without is missed now and not in hours."""
    TokenMeter(recipe.tokenizer)
    made = [work.kind(work.settings) for work in steps]
    return [line for step in made if isinstance(step, Step) for line in step.notes()]


def _check_apart(folders: Folders, recipe: Recipe) -> None:
    """A result must not become its own source, nor be removed with what it is made from."""
    out = folders.out.resolve()
    for source in recipe.sources:
        for path in map(Path.resolve, paths_of(source)):
            if path.is_dir() and out.is_relative_to(path):
                raise ConfigError(
                    f"{recipe.out}: lies in {path}, which source {source.name} reads whole; give "
                    "another out"
                )
            if path.is_relative_to(out) and folders.identity.exists():
                raise ConfigError(
                    f"source {source.name}: {path} is part of a result of data clean in "
                    f"{recipe.out}; give another out"
                )


def _check_free(folders: Folders) -> None:
    if not folders.out.exists() or folders.identity.exists():
        return
    # A run that was stopped at once has left no more than its lock.
    if all(path == folders.work for path in folders.out.iterdir()):
        return
    raise ConfigError(f"{folders.out}: not empty and no result of data clean; give another out")


def _clear(folders: Folders) -> None:
    """Remove an earlier result, what marks it as one last."""
    for path in (folders.clean, folders.report):
        path.unlink(missing_ok=True)
    for path in (folders.text, folders.all_dropped):
        shutil.rmtree(path, ignore_errors=True)
    for path in folders.work.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
    folders.identity.unlink(missing_ok=True)


def _is_done(folders: Folders, identity: str, recipe: Recipe) -> bool:
    if not folders.identity.exists():
        write_whole(folders.identity, identity)
    elif folders.identity.read_text(encoding="utf-8") != identity:
        raise ConfigError(
            f"{recipe.out}: holds the work of another recipe, or of sources that have changed "
            "since; give another out, or --force to start over"
        )
    return folders.clean.exists()
