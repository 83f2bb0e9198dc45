"""What a step's loss and gradient norm say of it: sound, not finite, or a loss spike.

The verdict is a function of these two numbers and of metrics.jsonl before them, and of nothing
else: ranks that have both alike judge alike, and a resumed run judges as the undisturbed one.
"""

import math
import statistics
from collections import deque
from dataclasses import dataclass
from typing import Any, Literal

from teleflm.config.run import SpikesConfig

Fault = Literal["non_finite", "spike"]

# The median absolute deviation of a normal distribution, times this, is its standard deviation.
_SIGMAS_A_DEVIATION = 1.4826
# A quiet run has a tiny deviation, and then every wiggle would be a spike.
_LEAST_EXCESS = 0.1


@dataclass(frozen=True)
class Verdict:
    """What is wrong with a step, in a word and in words, and what is done about it."""

    fault: Fault | None = None
    answer: Literal["log", "skip", "roll_back"] | None = None
    reason: str = ""

    @property
    def takes_update(self) -> bool:
        """Whether the weights move in spite of it."""
        return self.answer in (None, "log")


class Watch:
    """The newest steps of a run, against which the next one is judged.

    A faulty step takes a place in the window and leaves it empty. So one spike does not hide the
    next, and after a lasting change of the loss the window empties, and then fills with the new
    level.
    """

    def __init__(self, spikes: SpikesConfig) -> None:
        self._spikes = spikes
        self._losses: deque[float | None] = deque(maxlen=spikes.window)
        self.skipped_in_a_row = 0

    def add(self, line: dict[str, Any]) -> None:
        """Add the next step, a line of metrics.jsonl."""
        # Runs from before there were faults have no such keys.
        self._losses.append(None if line.get("fault") else line["loss"])
        self.skipped_in_a_row = self.skipped_in_a_row + 1 if line.get("skipped") else 0

    def judge(self, loss: float, grad_norm: float) -> Verdict:
        """The verdict on a step, before its update."""
        for name, value in (("loss", loss), ("gradient norm", grad_norm)):
            if not math.isfinite(value):
                return Verdict("non_finite", "skip", f"{name} {value}")
        sound = [value for value in self._losses if value is not None]
        if 2 * len(sound) < self._spikes.window:
            return Verdict()
        median = statistics.median(sound)
        deviation = statistics.median(abs(value - median) for value in sound)
        sigma = _SIGMAS_A_DEVIATION * deviation
        if loss <= median + max(self._spikes.threshold * sigma, _LEAST_EXCESS * median):
            return Verdict()
        reason = f"loss spike, {loss:.4g} where the last steps had {median:.4g} ± {sigma:.2g}"
        return Verdict("spike", self._spikes.answer, reason)
