"""Signals become a wish that the loop grants between two steps."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """The signal that asked the run to stop, if one did."""

    signal_number: int | None = None


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Catch SIGINT and SIGTERM; a second one of them ends the process at once."""
    request = StopRequest()

    def note(number: int, _: FrameType | None) -> None:
        request.signal_number = number
        for caught in previous:
            signal.signal(caught, previous[caught])

    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
