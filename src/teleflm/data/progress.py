"""Progress of work that is counted in bytes read, or in things of which there are many: a bar on a
terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def byte_progress(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yields a function that takes the bytes read since its last call, out of `total`.

    Rate and time left go to standard error, so that standard output stays the command's own.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    console = Console(stderr=True)
    if not console.is_terminal:
        lines = _Lines(title, total, console.file.write, _Unit("MB", 1e6, 1))
        yield lines.advance
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=total)
        yield lambda count: bar.advance(task, count)


@contextmanager
def item_progress(
    title: str, total: int, things: str, shown: bool = True
) -> Iterator[Callable[[int], None]]:
    """Yields a function that takes how many things were done since its last call, out of `total`.

    It is `byte_progress` for what is not counted in bytes; nothing is told unless `shown`.
    """
    if not shown:
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    if not console.is_terminal:
        lines = _Lines(title, total, console.file.write, _Unit(things, 1, 0))
        yield lines.advance
        return
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    )  # fmt: skip
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=total)
        yield lambda count: bar.advance(task, count)


class _Unit(NamedTuple):
    """What is counted, how many are one of `name`, and the digits behind the point."""

    name: str
    size: float
    digits: int

    def number(self, count: float, more: int = 0) -> str:
        """So many, with some digits more."""
        return f"{count / self.size:,.{self.digits + more}f}"


class _Lines:
    def __init__(self, title: str, total: int, write: Callable[[str], object], unit: _Unit) -> None:
        self._title, self._total, self._write, self._unit = title, total, write, unit
        self._done = 0
        self._start = self._shown = time.monotonic()

    def advance(self, count: int) -> None:
        self._done += count
        due = time.monotonic() - self._shown >= SECONDS_BETWEEN_LINES
        if due or self._done == self._total:
            self.show()

    def show(self) -> None:
        self._shown = time.monotonic()
        unit = self._unit
        rate = self._done / max(self._shown - self._start, 1e-9)
        left = (self._total - self._done) / rate if rate else float("inf")
        self._write(
            f"{self._title}: {unit.number(self._done)} of {unit.number(self._total)} {unit.name}, "
            f"{unit.number(rate, 1)} {unit.name}/s, {left:.0f} s left\n"
        )
