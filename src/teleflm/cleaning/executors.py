"""Does the tasks of a phase with processes of this machine; `remote.py` has Slurm and Ray.

A task that is done is marked by datatrove in the phase's folder and is not done again, so a run
that was stopped, or a worker that died, costs the tasks that were being done.
"""

import fcntl
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

from datatrove.executor.local import LocalPipelineExecutor
from loguru import logger

from teleflm.cleaning.folders import Folders, set_progress
from teleflm.cleaning.phases import Phase
from teleflm.cleaning.recipe import default_workers
from teleflm.data.processes import worker_pool
from teleflm.data.unpack import Progress
from teleflm.errors import MachineError
from teleflm.files import take_lock

_POLL_SECONDS = 0.5
_ORPHANS_SECONDS = 10.0


class Local:
    """Does phases with `workers` processes of this machine; one is this process itself."""

    def __init__(self, folders: Folders, workers: int | None, progress: Progress) -> None:
        self._folders, self._progress = folders, progress
        self._workers = workers or default_workers()
        self._pool: ProcessPoolExecutor | None = None
        self._bytes = multiprocessing.get_context("spawn").Value("Q", 0)
        self._reported = 0
        self._stack = ExitStack()

    def __enter__(self) -> "Local":
        logger.disable("datatrove")
        if self._workers == 1:
            set_progress(self._progress)
        else:
            pool = worker_pool(self._workers, _begin, self._bytes, self._folders.lock)
            self._pool = self._stack.enter_context(pool)
        return self

    def __exit__(self, *failure: Any) -> None:
        self._stack.__exit__(*failure)

    def run(self, phase: Phase, number: int) -> None:
        """Do what is not done yet of a phase. Raises what its tasks raise, and MachineError."""
        executor = LocalPipelineExecutor(
            phase.pipeline, phase.tasks, logging_dir=str(self._folders.logs(number))
        )
        left = executor.get_incomplete_ranks()
        if phase.sizes:
            self._progress(sum(phase.sizes) - sum(phase.sizes[rank] for rank in left))
        if self._pool is None:
            for rank in left:
                _task(deepcopy(executor), rank)  # a task begins with blocks as they were made
            return
        try:
            self._wait({self._pool.submit(_task, executor, rank) for rank in left})
        except BrokenProcessPool:
            raise MachineError(
                f"{self._folders.out}: a worker died in the phase {phase.name!r} (killed, or out "
                "of memory); the same command goes on from the tasks that are done, and "
                "executor.workers=1 needs the least memory"
            ) from None

    def _wait(self, futures: set["Future[None]"]) -> None:
        while futures:
            done, futures = wait(futures, _POLL_SECONDS, FIRST_COMPLETED)
            if count := self._bytes.value - self._reported:
                self._progress(count)
                self._reported += count
            for future in done:
                future.result()


def _task(executor: LocalPipelineExecutor, rank: int) -> None:
    # Any local rank but the first keeps datatrove from writing to the terminal.
    executor._run_for_rank(rank, local_rank=1)


def _begin(total: Any, lock: Path) -> None:
    """What a worker does first."""
    logger.disable("datatrove")

    def report(count: int) -> None:
        with total.get_lock():
            total.value += count

    set_progress(report)
    # Held until the process ends: nobody else begins while one is still writing.
    fcntl.flock(os.open(lock, os.O_RDONLY | os.O_CREAT), fcntl.LOCK_SH)


@contextmanager
def held(folders: Folders) -> Iterator[None]:
    """Hold the folder of a result, which is made where it is missing.

    Raises:
        RunLockedError: another process is at work there.
    """
    folders.work.mkdir(parents=True, exist_ok=True)
    with folders.lock.open("w") as file:
        # What is left of a run that was killed notices and goes within this time.
        take_lock(file, fcntl.LOCK_EX, folders.out, _ORPHANS_SECONDS)
        take_lock(file, fcntl.LOCK_SH, folders.out, 0.0)  # the workers hold it too
        yield
