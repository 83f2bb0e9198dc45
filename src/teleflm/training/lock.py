"""One process at a time in a run folder."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from teleflm.errors import RunLockedError


@contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Hold the lock of a run folder, which is made where it is missing.

    The operating system drops it with the process, so a killed run leaves none behind.

    Raises:
        RunLockedError: another process holds it.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    with (run_dir / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunLockedError(
                f"{run_dir}: another process is at work there; wait for it, or give another run_dir"
            ) from None
        yield
