"""SIGTERM, which asks the work to stop: what is done stays done."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from teleflm.errors import StoppedError


class _Terminated(BaseException):
    """SIGTERM; like KeyboardInterrupt nothing that a step may catch, as all that a page raises."""


@contextmanager
def terminable() -> Iterator[None]:
    """Have SIGTERM end the work as Ctrl-C does, with workers and locks left in order.

    Raises:
        StoppedError: it came.
    """

    def stop(_: int, __: FrameType | None) -> None:
        raise _Terminated

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except _Terminated:
        raise StoppedError(
            signal.SIGTERM, "what was finished is kept, run the same command again to go on"
        ) from None
    finally:
        signal.signal(signal.SIGTERM, previous)
