"""Gloo ranks on this machine, started once, that take one case after another."""

import multiprocessing
import os
import queue
import tempfile
import traceback
from collections.abc import Callable
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

from tests.undrawn import undrawn

_SECONDS = 300.0
# How long the other ranks may wait for one that failed.
_GRACE = 20.0


class World:
    """Processes of one process group. They start with the first case.

    Args:
        ranks: how many.
    """

    def __init__(self, ranks: int) -> None:
        self.ranks = ranks
        self._processes: list[Any] = []

    def run(self, case: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Call a module's function with these arguments on every rank; what each returned.

        Raises:
            AssertionError: with the traceback of the first rank that failed.
        """
        if not self._processes:
            self._start()
        for inbox in self._inboxes:
            inbox.put((case, arguments))
        results: dict[int, Any] = {}
        patience, failure = _SECONDS, None
        while len(results) < self.ranks:
            try:
                rank, result, error = self._outbox.get(timeout=patience)
            except queue.Empty:
                self.close()
                raise AssertionError(failure or f"no answer for {patience:.0f} s") from None
            results[rank] = result
            if error and failure is None:
                failure, patience = f"rank {rank}:\n{error}", _GRACE
        if failure is not None:
            self.close()
            raise AssertionError(failure)
        return [results[rank] for rank in range(self.ranks)]

    def _start(self) -> None:
        # Ranks outnumber cores: threads that spin would take them from one another.
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        # Nor has each rank a pool of processes that compile for it.
        os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
        # What ranks import takes seconds: one process does it, and they are forks of that.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["teleflm.series.run", "matplotlib.figure"])
        self._folder = tempfile.TemporaryDirectory()
        self._outbox: Any = context.Queue()
        self._inboxes: list[Any] = [context.Queue() for _ in range(self.ranks)]
        store = str(Path(self._folder.name) / "store")
        self._processes = [
            context.Process(
                target=_serve, args=(rank, self.ranks, store, inbox, self._outbox), daemon=True
            )
            for rank, inbox in enumerate(self._inboxes)
        ]
        for process in self._processes:
            process.start()

    def close(self) -> None:
        """End the processes; the next case starts new ones."""
        for process in self._processes:
            process.kill()
            process.join()
        self._processes = []


def _serve(rank: int, ranks: int, store: str, inbox: Any, outbox: Any) -> None:
    import torch
    import torch.distributed as dist
    from torch.distributed import device_mesh

    torch.set_num_threads(1)
    # An idle group of gloo wakes 100 times a second, and those of all ended cases took a third of
    # two cores: meshes of other layouts share the groups of the same ranks.
    made = cache(dist.new_group)
    device_mesh.new_group = lambda ranks, group_desc, **more: made(tuple(ranks), **more)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{store}",
        rank=rank,
        world_size=ranks,
        timeout=timedelta(seconds=_SECONDS),
    )
    with undrawn():
        while True:
            try:
                case, arguments = inbox.get()
                outbox.put((rank, case(*arguments), None))
            except BaseException:
                outbox.put((rank, None, traceback.format_exc()))
