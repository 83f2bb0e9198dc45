"""Progress of a folder that ranks write piece by piece, and of work that is counted."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from teleflm.data.progress import byte_progress
from teleflm.parallel.ranks import Ranks


@contextmanager
def rank_progress(title: str, share: int, ranks: Ranks) -> Iterator[Callable[[int], object]]:
    """Yields what takes the bytes that this rank wrote, out of its `share`; the first rank shows
    its own."""
    if not ranks.first:
        yield lambda _: None
        return
    with byte_progress(title, share) as progress:
        yield progress


@contextmanager
def count_progress(title: str, things: str) -> Iterator[Callable[[int, int], object]]:
    """Yields what takes how many things are done, and of how many: a bar on a terminal, a line for
    each elsewhere. They are few and take seconds each."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console, start = Console(stderr=True), time.monotonic()

    def rate(done: int) -> float:
        return (time.monotonic() - start) / done

    def line(done: int, of: int) -> None:
        speed = f", {rate(done):.1f} s each, {rate(done) * (of - done):.0f} s left" if done else ""
        console.file.write(f"{title}: {done} of {of} {things}{speed}\n")
        console.file.flush()

    if not console.is_terminal:
        yield line
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=None, speed="")

        def advance(done: int, of: int) -> None:
            speed = f"{rate(done):.1f} s each" if done else things
            bar.update(task, completed=done, total=of, speed=speed)

        yield advance
