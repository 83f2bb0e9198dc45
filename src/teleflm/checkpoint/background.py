"""Saving while training goes on: the state is copied first, and written by a thread."""

import threading
from collections.abc import Callable
from dataclasses import replace

import torch

from teleflm.growth.state import Tensors, TrainingState


class Staging:
    """Memory of its own for one state, used again for each."""

    def __init__(self) -> None:
        self._weights: Tensors = {}
        self._exp_avg: Tensors = {}
        self._exp_avg_sq: Tensors = {}

    def copy(self, state: TrainingState) -> TrainingState:
        """The state with its tensors in this memory, where the next copy replaces them."""
        _copy(state.weights, self._weights)
        _copy(state.exp_avg, self._exp_avg)
        _copy(state.exp_avg_sq, self._exp_avg_sq)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return replace(
            state, weights=self._weights, exp_avg=self._exp_avg, exp_avg_sq=self._exp_avg_sq
        )


def _copy(tensors: Tensors, staged: Tensors) -> None:
    for name, tensor in tensors.items():
        if name not in staged:
            # Pinned, a GPU writes into it at the full speed of its bus.
            staged[name] = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
        staged[name].copy_(tensor, non_blocking=True)


class Background:
    """One piece of work at a time, in a thread."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None

    def start(self, work: Callable[[], object]) -> None:
        """Begin `work`; what came before has to be waited for."""

        def keep_failure() -> None:
            try:
                work()
            except BaseException as error:
                self._failure = error

        # A daemon, so that a process that is told to end at once does.
        self._thread = threading.Thread(target=keep_failure, daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Wait until nothing is under way.

        Raises:
            BaseException: what the work raised.
        """
        # Forgotten first: who is interrupted here does not want to wait again.
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
