"""Progress of a checkpoint that is written piece by piece."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from teleflm.checkpoint.stream import state_bytes
from teleflm.data.progress import byte_progress
from teleflm.growth.state import LazyState
from teleflm.parallel.ranks import Ranks


@contextmanager
def rank_progress(title: str, state: LazyState, ranks: Ranks) -> Iterator[Callable[[int], object]]:
    """Yields what `write_state` tells its bytes; the first rank shows its own share."""
    if not ranks.first:
        yield lambda _: None
        return
    with byte_progress(title, state_bytes(state, ranks.rank, ranks.count)) as progress:
        yield progress
