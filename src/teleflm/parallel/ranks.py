"""Processes that decide together.

What ranks do by themselves may take longer than a message may take (`FaultsConfig`): a checkpoint
to be read through, layers to be measured. So meanwhile all tell one another that they are there.
"""

import threading
from collections.abc import Callable
from contextlib import suppress
from math import nan
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")

# Many times within any limit, and too rarely to cost anything.
_SECONDS_BETWEEN_WORDS = 1.0


class Ranks:
    """The ranks of a process group; a single one where `torch.distributed` is not initialised.

    Args:
        group: a group that carries CPU tensors (gloo), the world's where None.
        alone: this process by itself, whatever others there are.
    """

    def __init__(self, group: dist.ProcessGroup | None = None, *, alone: bool = False) -> None:
        self.group = group
        self.many = not alone and dist.is_available() and dist.is_initialized()
        self.rank = dist.get_rank(group) if self.many else 0
        self.count = dist.get_world_size(group) if self.many else 1

    @property
    def first(self) -> bool:
        """Whether this is the rank that speaks for all."""
        return self.rank == 0

    def agreed(self, action: Callable[[], T]) -> T:
        """Do `action`, however long it takes, on every rank; each gets its own result. It must not
        send messages to the same ranks.

        Raises:
            Exception: what the lowest rank that failed raised, the same on all.
        """
        result, failure = self._attempt_at_length(action)
        failures: list[Exception | None] = [failure]
        if self.many:
            failures = [None] * self.count
            dist.all_gather_object(failures, failure, group=self.group)
        for rank, found in enumerate(failures):
            if found is not None:
                # One's own keeps its traceback.
                raise failure if failure is not None and rank == self.rank else found
        return result

    def gathered(self, action: Callable[[], T]) -> list[T]:
        """Do `action` on every rank; all get all results, in the order of the ranks.

        Raises:
            Exception: see `agreed`.
        """
        result = self.agreed(action)
        if not self.many:
            return [result]
        results: list[Any] = [None] * self.count
        dist.all_gather_object(results, result, group=self.group)
        return results

    def largest(self, value: int) -> int:
        """The largest of the ranks' values, on each of them."""
        if not self.many:
            return value
        found = torch.tensor(value)
        dist.all_reduce(found, dist.ReduceOp.MAX, group=self.group)
        return int(found)

    def fill(self, tensor: Tensor, action: Callable[[], object]) -> None:
        """Do `action` on every rank; each sets its own entries of a tensor of zeros on the CPU, and
        all get all of them, to the bit.

        Raises:
            Exception: see `agreed`.
        """
        if not self.many:
            action()
            return
        _, failure = _attempt(action)
        if failure is not None:
            tensor.fill_(nan)
        dist.all_reduce(tensor, group=self.group)
        # A failure travels in the sum: to ask about each one would cost more than the sums do.
        if tensor.isnan().any():
            self.agreed(lambda: _raise(failure))

    def from_first(self, action: Callable[[], T]) -> T:
        """Do `action`, however long it takes, on the first rank; all get its result. It must not
        send messages to the same ranks.

        Raises:
            Exception: what it raised there, the same on all.
        """
        done: list[Any] = [None, None]
        if self.first:
            done = list(self._attempt_at_length(action))
        else:
            self._wait_for_all()
        if self.many:
            dist.broadcast_object_list(done, group=self.group, group_src=0)
        result, failure = done
        if failure is not None:
            raise failure
        return result

    def _attempt_at_length(self, action: Callable[[], Any]) -> tuple[Any, Exception | None]:
        """Do `action`, and wait until all ranks have done theirs: its result, or how it failed."""
        if not self.many:
            return _attempt(action)
        done = threading.Event()
        # In a thread, as the action may be one long call of a library.
        words = threading.Thread(target=self._tell_of_work, args=[done], daemon=True)
        words.start()
        try:
            outcome = _attempt(action)
        finally:
            done.set()
        words.join()
        self._wait_for_all()
        return outcome

    def _tell_of_work(self, done: threading.Event) -> None:
        # That another rank is lost is found again, and told, by who waits for all.
        with suppress(RuntimeError):
            while not done.wait(_SECONDS_BETWEEN_WORDS):
                self._all_are_done(False)

    def _wait_for_all(self) -> None:
        while not self._all_are_done(True):
            pass

    def _all_are_done(self, mine: bool) -> bool:
        """A word of each rank, about one a second until all say that they are done."""
        word = torch.tensor(int(mine))
        dist.all_reduce(word, dist.ReduceOp.MIN, group=self.group)
        return bool(word)


def _raise(failure: Exception | None) -> None:
    if failure is not None:
        raise failure


def _attempt(action: Callable[[], T]) -> tuple[Any, Exception | None]:
    try:
        return action(), None
    except Exception as error:
        return None, error
