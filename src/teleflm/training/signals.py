"""Signals become a wish that the loop grants between two steps."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

# Not what was there before: a shell starts background commands with SIGINT ignored.
_AT_ONCE: dict[signal.Signals, Any] = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGTERM: signal.SIG_DFL,
}
_STDERR = 2
_HEARD = b"\nstopping after this step, and saving; again to stop at once, unsaved\n"
# One SIGTERM may come twice: Slurm sends it to every process, and torchrun passes its own on.
_SAME_WISH_SECONDS = 2.0


class StopRequest:
    """The signal that asked the run to stop, if one did."""

    signal_number: int | None = None


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Catch SIGINT and SIGTERM; a second one of them ends the process at once.

    A SIGTERM soon after another is the same one. Ctrl-C comes from a person, who means it.
    """
    request = StopRequest()
    # Not in the request, which also other ranks' signals fill.
    first: tuple[int, float] | None = None

    def note(number: int, _: FrameType | None) -> None:
        nonlocal first
        now = time.monotonic()
        if first is None:
            first = number, now
            request.signal_number = number
            if os.isatty(_STDERR):
                # Not print(): the signal may have come in the middle of another one.
                os.write(_STDERR, _HEARD)
        elif number != signal.SIGTERM or first[0] != number or now - first[1] > _SAME_WISH_SECONDS:
            for caught, at_once in _AT_ONCE.items():
                signal.signal(caught, at_once)
            os.kill(os.getpid(), number)

    previous = {number: signal.signal(number, note) for number in _AT_ONCE}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
