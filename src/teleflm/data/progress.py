"""Progress of work that is counted in bytes read, or in things of which there are many: a bar on a
terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

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
        lines = _Lines(title, total, console.file.write, lambda count: f"{count / 1e6:.2f} MB")
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
        lines = _Lines(title, total, console.file.write, lambda count: f"{count:,.0f} {things}")
        yield lines.advance
        return
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    )  # fmt: skip
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=total)
        yield lambda count: bar.advance(task, count)


class _Lines:
    def __init__(
        self,
        title: str,
        total: int,
        write: Callable[[str], object],
        form: Callable[[float], str],
    ) -> None:
        self._title, self._total, self._write, self._form = title, total, write, form
        self._done = 0
        self._start = self._shown = time.monotonic()

    def advance(self, count: int) -> None:
        self._done += count
        due = time.monotonic() - self._shown >= SECONDS_BETWEEN_LINES
        if due or self._done == self._total:
            self.show()

    def show(self) -> None:
        self._shown = time.monotonic()
        rate = self._done / max(self._shown - self._start, 1e-9)
        left = (self._total - self._done) / rate if rate else float("inf")
        self._write(
            f"{self._title}: {self._form(self._done)} of {self._form(self._total)}, "
            f"{self._form(rate)}/s, {left:.0f} s left\n"
        )
