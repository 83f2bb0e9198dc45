"""Two contenders timed in turn, so that a busy machine slows both alike."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Pairs:
    """Seconds of two contenders, pair by pair: `ours[i]` and `theirs[i]` ran back to back."""

    ours: list[float]
    theirs: list[float]

    @property
    def ratios(self) -> list[float]:
        """How many times as fast ours was in each pair, in rising order."""
        return sorted(b / a for a, b in zip(self.ours, self.theirs, strict=True))

    @property
    def ratio(self) -> float:
        """The median of `ratios`, which a disturbed pair does not move."""
        return statistics.median(self.ratios)


def time_alternately(
    ours: Callable[[], object], theirs: Callable[[], object], pairs: int, warmup: int = 2
) -> Pairs:
    """Run A B A B …, `warmup` unmeasured pairs and then `pairs` measured ones.

    Each contender has to wait for its own device.
    """
    seconds: tuple[list[float], list[float]] = ([], [])
    for index in range(warmup + pairs):
        for contender, times in zip((ours, theirs), seconds, strict=True):
            start = time.perf_counter()
            contender()
            if index >= warmup:
                times.append(time.perf_counter() - start)
    return Pairs(*seconds)
