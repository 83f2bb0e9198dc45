"""One run at a time in a run folder."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from teleflm.files import take_lock
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
        ranks.from_first(lambda: take_lock(file, fcntl.LOCK_EX, run_dir, patience))
        if ranks.many:
            ranks.from_first(lambda: take_lock(file, fcntl.LOCK_SH, run_dir, 0.0))
            ranks.agreed(lambda: take_lock(file, fcntl.LOCK_SH, run_dir, 0.0))
        yield
