"""Progress of a folder that ranks write piece by piece."""

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
