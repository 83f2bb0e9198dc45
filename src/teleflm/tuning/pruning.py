"""The end of a trial that does worse than those before it."""

from collections.abc import Callable

from teleflm.config.run import RunConfig
from teleflm.training.hooks.base import Hook
from teleflm.training.hooks.jsonl import records_up_to
from teleflm.training.hooks.metrics import METRICS
from teleflm.training.run import Run, StepRecord
from teleflm.tuning.criteria import TENTHS, tenth_ends, tenths
from teleflm.tuning.sampling import Judge

# A trial is not judged in its first three tenths, nor in those of its warm-up and the two after it:
# while rates warm up, a lower one does better, and it takes time until that is made up for.
_LEAST = 3
_AFTER_WARMUP = 2


class PrunedError(Exception):
    """The trial ends here."""


def first_judged(run: RunConfig) -> int:
    """The tenth of a run after which a pruner first judges it; above 9 it never does."""
    schedule, steps = run.schedule, run.training.steps
    warmup = min(schedule.warmup_steps, schedule.total_steps or steps)
    return max(_LEAST, -(-TENTHS * warmup // steps) + _AFTER_WARMUP)


class Prune(Hook):
    """Raises PrunedError after a tenth of the run's steps by which the judge ends it.

    It is judged by the recorded losses, those from before a resume or a roll back too: what an
    undisturbed run finds, one that was killed finds again.
    """

    def __init__(self, judge: Callable[[], Judge]) -> None:
        self._new_judge = judge

    @property
    def marks(self) -> dict[str, float]:
        """See `Judge`."""
        return self._judge.marks

    def on_start(self, run: Run) -> None:
        self._judge = self._new_judge()
        self._steps = run.config.training.steps
        self._first = first_judged(run.config)
        rows = records_up_to(run.directory / METRICS, run.step)
        self._losses = [row["loss"] for row in rows]
        for tenth, loss in tenths(self._losses, self._steps).items():
            self._ask(tenth, loss)

    def on_step(self, run: Run, record: StepRecord) -> None:
        self._losses.append(record.loss)
        tenth = tenth_ends(self._steps).get(run.own_steps)
        if tenth is not None:
            self._ask(tenth, tenths(self._losses, self._steps)[tenth])

    def _ask(self, tenth: int, loss: float) -> None:
        # At its end there is nothing left to save.
        if self._first <= tenth < TENTHS and self._judge.prunes(tenth, loss):
            raise PrunedError
