"""One run at a time in a run folder."""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from teleflm.errors import RunLockedError
from teleflm.parallel.ranks import Ranks

# What is left of a run whose launcher was killed notices and goes within this time.
_ORPHANS_SECONDS = 10.0


@contextmanager
def locked(run_dir: Path, ranks: Ranks | None = None) -> Iterator[None]:
    """Hold the lock of a run folder, which is made where it is missing.

    The operating system drops it with the process, so a killed run leaves none behind. Each of many
    ranks holds it: a run that follows does not start before the last rank of this one is gone.

    Raises:
        RunLockedError: another process holds it; the same on all ranks.
    """
    ranks = ranks or Ranks()
    run_dir.mkdir(parents=True, exist_ok=True)
    with (run_dir / ".lock").open("w") as file:
        patience = _ORPHANS_SECONDS if ranks.many else 0.0
        ranks.from_first(lambda: _take(file, fcntl.LOCK_EX, run_dir, patience))
        if ranks.many:
            ranks.from_first(lambda: _take(file, fcntl.LOCK_SH, run_dir, 0.0))
            ranks.agreed(lambda: _take(file, fcntl.LOCK_SH, run_dir, 0.0))
        yield


def _take(file: IO[str], kind: int, run_dir: Path, patience: float) -> None:
    until = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= until:
                raise RunLockedError(
                    f"{run_dir}: another process is at work there; wait for it, or give another "
                    "run_dir"
                ) from None
        time.sleep(0.1)
