"""How much memory a command takes, with all processes that it starts; on Linux."""

import threading
from pathlib import Path


class Memory:
    """The memory of a process and those it started, in bytes.

    Of one, its own highest mark; of all, the largest sum that was seen, five times a second, where
    a page that several hold counts once.
    """

    def __init__(self, pid: int) -> None:
        self.most_of_one, self.most_of_all = 0, 0
        self._pid, self._over = pid, threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        while not self._over.wait(0.2):
            shares = 0
            for pid in _family(self._pid):
                try:
                    self.most_of_one = max(self.most_of_one, _field(pid, "status", "VmHWM"))
                    shares += _field(pid, "smaps_rollup", "Pss")
                except (OSError, IndexError):
                    continue
            self.most_of_all = max(self.most_of_all, shares)

    def stop(self) -> None:
        """Look no more."""
        self._over.set()
        self._thread.join()


def _field(pid: int, file: str, name: str) -> int:
    """Bytes that a file of /proc says; IndexError where it does not, of a process that ends."""
    content = Path(f"/proc/{pid}/{file}").read_text()
    return int(content.split(f"\n{name}:")[1].split()[0]) * 1024


def _family(pid: int) -> list[int]:
    found = [pid]
    for one in found:
        for children in Path(f"/proc/{one}/task").glob("*/children"):
            try:
                found += map(int, children.read_text().split())
            except OSError:
                continue
    return found
