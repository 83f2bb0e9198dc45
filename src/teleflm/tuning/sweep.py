"""`teleflm sweep`: trial after trial, in this process or in several, until all are done."""

import multiprocessing
import signal
import sys
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from ctypes import c_int64
from typing import Any

import torch

from teleflm.config.sweep import SweepConfig
from teleflm.data.processes import ask_to_stop, worker_pool
from teleflm.data.progress import item_progress
from teleflm.errors import MachineError, StoppedError
from teleflm.training.signals import StopRequest, stop_request
from teleflm.tuning.criteria import TENTHS
from teleflm.tuning.pruning import first_judged
from teleflm.tuning.space import Space
from teleflm.tuning.study import Study
from teleflm.tuning.trial import Advance, Outcome, run_trial

_SECONDS_BETWEEN_LOOKS = 0.2
_GOES_ON = "the same command goes on from there"


def run_sweep(config: SweepConfig, source: str) -> Study:
    """Run the trials of a sweep that are not done; other processes may do so at the same time.

    Args:
        config: the sweep.
        source: where it was read, for messages.

    Returns:
        Its study.

    Raises:
        ConfigError, DataError, CheckpointError: the input is at fault.
        MachineError: a full disk, or a worker that was killed.
        StoppedError: SIGINT or SIGTERM, after the work so far was saved.
    """
    space = Space(config, source)
    study = Study(config, space)
    each = space.base.training.steps * len(config.run_seeds)
    finished = sum(trial.state.is_finished() for trial in study.trials())
    left = space.trials - finished
    if left <= 0:
        return study
    if config.pruner != "none" and first_judged(space.base) >= TENTHS:
        print(
            f"warning: {source}: no trial will be pruned: a pruner judges from two tenths of the "
            f"steps after the warm-up on, and this one's schedule.warmup_steps "
            f"({space.base.schedule.warmup_steps}) leave none of {space.base.training.steps}",
            file=sys.stderr,
        )
    with stop_request() as stop, item_progress("sweep", left * each, "steps") as advance:
        if config.workers == 1:
            _work(config, space, study, advance, stop)
        else:
            _work_in_processes(config, source, advance, stop)
    return study


def _work(
    config: SweepConfig, space: Space, study: Study, advance: Advance, stop: StopRequest
) -> None:
    """Run trials until there is none to begin."""
    planned = space.base.training.steps * len(config.run_seeds)
    while True:
        if stop.signal_number is not None:
            raise StoppedError(stop.signal_number, f"all trials are saved; {_GOES_ON}")
        with study.begin() as trial:
            if trial is None:
                return
            done = 0

            def count(steps: int) -> None:
                nonlocal done
                done += steps
                advance(steps)

            outcome = run_trial(config, study.dtype, trial.values, trial.folder, trial.seen, count)
            study.finish(trial.number, outcome)
            if left := planned - done:
                # What a pruned trial left out, or one that was taken up had behind it.
                advance(left)
            _tell(trial.number, outcome)


def _tell(number: int, outcome: Outcome) -> None:
    told = f"loss {outcome.loss:.4f}" if outcome.loss is not None else outcome.reason
    print(f"trial {number}: {outcome.state}, {told}", file=sys.stderr, flush=True)


def _work_in_processes(
    config: SweepConfig, source: str, advance: Advance, stop: StopRequest
) -> None:
    """The same by several processes, each of which starts once, on its share of the cores."""
    threads = max(1, torch.get_num_threads() // config.workers)
    counter = multiprocessing.get_context("spawn").Value(c_int64, 0)
    asked, shown = False, 0
    failure: BaseException | None = None
    with worker_pool(config.workers, _ready, counter, threads) as pool:
        running: set[Future[None]] = {
            pool.submit(_work_here, config, source) for _ in range(config.workers)
        }
        while running:
            done, running = wait(running, _SECONDS_BETWEEN_LOOKS, FIRST_COMPLETED)
            failure = failure or next(filter(None, (each.exception() for each in done)), None)
            now = counter.value
            if now != shown:
                advance(now - shown)
                shown = now
            if (failure or stop.signal_number) and not asked:
                asked = True
                ask_to_stop(pool)
        # In here: where a worker died, those left wait for work that never comes, and are killed.
        if isinstance(failure, BrokenProcessPool):
            raise MachineError(
                "a worker was killed, as where memory is out; its trial is kept: the same command "
                "goes on, with fewer workers or a smaller training.micro_batch if it was that"
            )
        if stop.signal_number is not None and not (
            failure and not isinstance(failure, StoppedError)
        ):
            raise StoppedError(stop.signal_number, f"all trials are saved; {_GOES_ON}")
        if failure is not None:
            raise failure


# Of a worker process: how it counts steps for all of them.
_advance: Callable[[int], object] = lambda _: None  # noqa: E731


def _ready(counter: Any, threads: int) -> None:
    global _advance
    torch.set_num_threads(threads)

    def advance(steps: int) -> None:
        with counter.get_lock():
            counter.value += steps

    _advance = advance


def _work_here(config: SweepConfig, source: str) -> None:
    with stop_request() as stop:
        # Ctrl-C is for the process that started this one, and comes from it as SIGTERM.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        try:
            space = Space(config, source)
            _work(config, space, Study(config, space), _advance, stop)
        finally:
            # Idle it would die of the next one, with a lock that the others need.
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
