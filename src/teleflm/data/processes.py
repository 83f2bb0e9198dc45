"""Worker processes that answer to nobody but the one that started them, and do not outlive it."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import connection
from typing import Any


@contextmanager
def worker_pool(
    count: int, begin: Callable[..., None], *arguments: Any
) -> Iterator[ProcessPoolExecutor]:
    """A pool of `count` processes, each of which calls `begin` with `arguments` first.

    SIGINT and SIGTERM are this process's to answer, and the workers follow it. Where what is done
    with the pool fails, they are killed: whatever they are at is done again, so nobody waits.
    """
    # Spawned: a fork would copy the locks of this process's threads as they are.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(count, context, _born, (begin, arguments))
    # They are born deaf: a worker that heard Ctrl-C while it starts would say so.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        for _ in range(count):  # each task starts a worker, as none is idle yet
            pool.submit(int)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    try:
        yield pool
    except BaseException:
        for process in list((pool._processes or {}).values()):
            process.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def ask_to_stop(pool: ProcessPoolExecutor) -> None:
    """Send SIGTERM to the workers, which those heed that have unblocked it."""
    for process in list((pool._processes or {}).values()):
        process.terminate()


def _born(begin: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    _follow_parent()
    begin(*arguments)


def _follow_parent() -> None:
    """Have this process end at once when its parent does, also where that was killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
