"""A line when one rank is much slower than the others, who all wait for it."""

import socket
import statistics
import sys
import threading
import time
from collections.abc import Sequence
from types import FrameType
from typing import NamedTuple

import torch
import torch.distributed as dist

from teleflm.parallel.choose import layout_for
from teleflm.training.hooks.base import Hook
from teleflm.training.run import Run, StepRecord

_SECONDS_BETWEEN_LOOKS = 0.02
# So many times what the others take, and so much of the whole step, is slow.
_FACTOR, _SHARE = 1.5, 0.1
# Where a rank waits: for a message of another in these files of torch.distributed, or for its GPU
# in ours, where a step reads its loss.
_WAITS = (
    "torch/distributed/distributed_c10d.py",
    "torch/distributed/_functional_collectives.py",
    "torch/distributed/fsdp/_fully_shard/_fsdp_collectives.py",
    "torch/distributed/fsdp/_fully_shard/_fsdp_param_group.py",
    "torch/distributed/pipelining/schedules.py",
    "teleflm/training/step.py",
)
# Between these and the operator that they call nothing else happens.
_CALLS = ("torch/_ops.py", "torch/_library/autograd.py")
_SIZE, _PRODUCTS = 4096, 8


class Figures(NamedTuple):
    """Of one rank, in seconds: a step, what of it is own work, and a fixed job of the GPU (0 where
    there is none)."""

    step: float
    own: float
    device: float


class Lagging(Hook):
    """Says on standard error which rank is slow, at most once in `seconds`.

    A step takes as long for a rank that waits as for the one that it waits for, so the wall clock
    does not tell them apart. Own work is measured by looking: 50 times a second a thread sees
    whether the one that trains is where ranks wait. With a GPU that is what its process does, and
    the GPU itself is timed at the same fixed work everywhere. A rank is compared with those of its
    own pipeline stage, as others have other layers; with all where it is alone there.

    Every step costs nothing but the looks; the figures are gathered about every `seconds`, counted
    in steps that all ranks derive alike from what they gathered last.
    """

    on_every_rank = True

    def __init__(self, seconds: float = 30.0) -> None:
        self._seconds = seconds
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def on_start(self, run: Run) -> None:
        if not run.ranks.many:
            return
        self._hosts: list[str] = [""] * run.ranks.count
        dist.all_gather_object(self._hosts, socket.gethostname(), group=run.ranks.group)
        layout = layout_for(run.config, run.ranks.count)
        self._stages = [layout.place(rank).pp for rank in range(layout.ranks)]
        # The first step compiles and allocates, so that the first figures only set the pace.
        self._due, self._is_first = run.step + 2, True
        self._looks = Looks(threading.get_ident())
        self._stop.clear()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        self._begin(run)

    def _watch(self) -> None:
        while not self._stop.wait(_SECONDS_BETWEEN_LOOKS):
            self._looks.look()

    def _begin(self, run: Run) -> None:
        self._began, self._from = time.perf_counter(), run.step
        self._looks.clear()

    def on_step(self, run: Run, record: StepRecord) -> None:
        if self._thread is None or run.step < self._due:
            return
        found = self._gather(run)
        if run.ranks.first and not self._is_first:
            for line in slow_ranks(found, self._stages, self._hosts):
                print(f"{run.directory}, step {run.step}: {line}", file=sys.stderr, flush=True)
        slowest = max(figures.step for figures in found)
        self._due, self._is_first = run.step + max(1, round(self._seconds / slowest)), False
        self._begin(run)

    def _gather(self, run: Run) -> list[Figures]:
        step = (time.perf_counter() - self._began) / (run.step - self._from)
        own = step * (1 - self._looks.waiting_share)
        mine = torch.tensor(Figures(step, own, device_seconds(run.learner.engine.device)))
        everyone = [torch.empty_like(mine) for _ in range(run.ranks.count)]
        dist.all_gather(everyone, mine, group=run.ranks.group)
        return [Figures(*figures.tolist()) for figures in everyone]

    def close(self) -> None:
        if self._thread is not None:
            self._stop.set()
            self._thread.join()
            self._thread = None


class Looks:
    """How often a thread was found waiting.

    Args:
        thread: its identifier.
    """

    def __init__(self, thread: int) -> None:
        self._thread = thread
        self.clear()

    def clear(self) -> None:
        """Begin anew."""
        self._looks = self._waiting = 0

    def look(self) -> None:
        """See where it is just now."""
        self._looks += 1
        self._waiting += is_waiting(sys._current_frames()[self._thread])

    @property
    def waiting_share(self) -> float:
        """Of all looks; 0 before the first."""
        return self._waiting / max(1, self._looks)


def is_waiting(frame: FrameType) -> bool:
    """Whether a thread whose innermost frame this is waits for other ranks or for its GPU."""
    outer: FrameType | None = frame
    while outer is not None and outer.f_code.co_filename.endswith(_CALLS):
        outer = outer.f_back
    if outer is None:
        return False
    # A tensor that was waited for is computed with in one of the files, in its dispatch.
    code = outer.f_code
    return code.co_filename.endswith(_WAITS) and code.co_name != "__torch_dispatch__"


def device_seconds(device: torch.device) -> float:
    """What a GPU takes for a few matrix products, about 5 ms; 0 on a CPU, whose work is all seen
    by looking."""
    if device.type != "cuda":
        return 0.0
    a = torch.ones(_SIZE, _SIZE, dtype=torch.bfloat16, device=device)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    a @ a
    begin.record()
    for _ in range(_PRODUCTS):
        a @ a
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1e3


def slow_ranks(found: Sequence[Figures], stages: Sequence[int], hosts: Sequence[str]) -> list[str]:
    """A line for each rank that takes much longer than the others.

    Args:
        found: the figures of each rank.
        stages: the pipeline rank of each.
        hosts: the machine of each.
    """
    lines = []
    for rank, mine in enumerate(found):
        others = [other for other in range(len(found)) if other != rank]
        peers = [other for other in others if stages[other] == stages[rank]]
        who = f"rank {rank} (host {hosts[rank]}) is slow"
        usual = statistics.median(found[peer].own for peer in peers or others)
        if mine.own > max(_FACTOR * usual, usual + _SHARE * mine.step):
            lines.append(
                f"{who}: {mine.own:.2g} s of own work a step where the others take {usual:.2g} s"
            )
        # The same work on every rank, whatever its stage.
        usual = statistics.median(found[other].device for other in others)
        if mine.device > _FACTOR * usual:
            lines.append(
                f"{who}: its GPU takes {mine.device * 1e3:.2g} ms for what takes the others "
                f"{usual * 1e3:.2g} ms"
            )
    return lines
