"""Signals become a wish that the loop grants between two steps."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

# Not what was there before: a shell starts background commands with SIGINT ignored.
_AT_ONCE: dict[signal.Signals, Any] = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGTERM: signal.SIG_DFL,
}


class StopRequest:
    """The signal that asked the run to stop, if one did."""

    signal_number: int | None = None


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Catch SIGINT and SIGTERM; a second one of them ends the process at once."""
    request = StopRequest()

    def note(number: int, _: FrameType | None) -> None:
        request.signal_number = number
        for caught, at_once in _AT_ONCE.items():
            signal.signal(caught, at_once)

    previous = {number: signal.signal(number, note) for number in _AT_ONCE}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
