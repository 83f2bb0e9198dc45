"""torchrun and the ranks that it starts, as someone who kills them sees them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

RANKS = 4
# Start-up of all ranks on two busy cores included.
PATIENCE = 180.0


class Stuck(AssertionError):
    """Something that had to happen did not."""


def wait_for(what: str, happened: Callable[[], bool], seconds: float = PATIENCE) -> float:
    """Wait until it happened; the seconds that it took.

    Raises:
        Stuck: it did not.
    """
    started = time.monotonic()
    while not happened():
        if time.monotonic() - started > seconds:
            raise Stuck(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.002)
    return time.monotonic() - started


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def kill(pid: int, number: int) -> None:
    """Send a signal to a process that may be gone."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def said_in(log: Path) -> str:
    """What a log has so far; a killed process may leave half a character."""
    return log.read_text(encoding="utf-8", errors="replace")


class Job:
    """`torchrun -m teleflm train`, whose ranks are started again as often as they fail.

    Args:
        file: RUN.yaml.
        log: where all that it says goes.
        overrides: `key=value`.
    """

    def __init__(self, file: Path, log: Path, *overrides: str) -> None:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc-per-node", str(RANKS), "--max-restarts", "1000"]
        command += ["-m", "teleflm", "train", str(file), *overrides]
        self.log = log
        with log.open("wb") as output:
            self.agent = subprocess.Popen(
                command, stdout=output, stderr=output, env={**os.environ, "OMP_NUM_THREADS": "1"}
            )

    def said(self) -> str:
        """All that it said so far."""
        return said_in(self.log)

    def ranks(self) -> list[int]:
        """The process of each rank that lives."""
        try:
            text = Path(f"/proc/{self.agent.pid}/task/{self.agent.pid}/children").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return []
        return [pid for pid in map(int, text.split()) if alive(pid)]

    def ended(self) -> bool:
        """Whether torchrun has ended."""
        return self.agent.poll() is not None

    def kill_all(self) -> None:
        """SIGKILL for torchrun and every rank."""
        ranks = self.ranks()
        for pid in (self.agent.pid, *ranks):
            kill(pid, signal.SIGKILL)
        self.agent.wait()
        wait_for("killed ranks go", lambda: not any(map(alive, ranks)), 30.0)
