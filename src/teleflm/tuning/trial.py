"""One trial: a combination, run for each seed in an ordinary run folder."""

import gc
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Literal

from optuna.trial import FrozenTrial

from teleflm.config.run import Precision, settled_dtype
from teleflm.config.sweep import SweepConfig
from teleflm.errors import ConfigError, DivergedError
from teleflm.training.hooks.base import Hook
from teleflm.training.hooks.checkpoints import SaveCheckpoints
from teleflm.training.hooks.evaluation import Evaluate
from teleflm.training.hooks.metrics import Metrics, TensorBoard
from teleflm.training.loop import train
from teleflm.training.run import Run, StepRecord
from teleflm.tuning.criteria import (
    Criteria,
    criteria,
    finished_loss,
    mean_criteria,
    tenths,
    training_losses,
)
from teleflm.tuning.pruning import Prune, PrunedError
from teleflm.tuning.sampling import Judge
from teleflm.tuning.space import Values, run_of

State = Literal["complete", "pruned", "diverged", "invalid"]
Advance = Callable[[int], object]


@dataclass(frozen=True)
class Outcome:
    """How a trial ended.

    Attributes:
        state: to its end; ended by the pruner; ended by steps that went wrong, or with a loss that
            is not finite; or values that together make no run.
        loss: the mean over seeds of a complete trial's `finished_loss`.
        seeds: that of each seed, as far as they ran.
        criteria: their means over the seeds that ran, see `Criteria`.
        tenths: the first seed's mean training loss of each tenth.
        marks: what the pruner noted.
        reason: why it ended early, in words.
    """

    state: State
    loss: float | None = None
    seeds: dict[int, float] = field(default_factory=dict)
    criteria: dict[str, float | None] = field(default_factory=dict)
    tenths: dict[int, float] = field(default_factory=dict)
    marks: dict[str, float] = field(default_factory=dict)
    reason: str = ""


class _Counted(Hook):
    """Tells each step."""

    def __init__(self, advance: Advance) -> None:
        self._advance = advance

    def on_step(self, run: Run, record: StepRecord) -> None:
        self._advance(1)


def run_trial(
    config: SweepConfig,
    dtype: Precision,
    values: Values,
    folder: Path,
    seen: Iterable[FrozenTrial],
    advance: Advance,
) -> Outcome:
    """Run a trial to its end, from where it stands in its folder.

    Raises:
        StoppedError, MachineError and what else `train` does, but for a run that diverges.
    """
    prune = Prune(partial(Judge, config.pruner, list(seen)))
    losses: dict[int, float] = {}
    found: list[Criteria] = []
    curve: dict[int, float] = {}
    state: State = "complete"
    reason = ""
    for seed, run_dir in run_folders(config, folder).items():
        try:
            run = settled_dtype(run_of(config, values, run_dir, seed), dtype)
        except ConfigError as error:
            return Outcome("invalid", reason=str(error))
        hooks = [Metrics(), TensorBoard(), Evaluate(), SaveCheckpoints(), _Counted(advance)]
        if not losses:
            # The first seed's losses are judged, as they are of all trials.
            hooks.append(prune)
        # What there is stays; looked through after each run it would cost a third of a second.
        gc.freeze()
        try:
            train(run, hooks)
            losses[seed] = finished_loss(run_dir)
        except PrunedError:
            state, reason = "pruned", "worse than the trials before it"
        except DivergedError as error:
            state, reason = "diverged", str(error)
        finally:
            # The network is in a circle of references, and memory may not hold two.
            gc.collect()
            gc.unfreeze()
        found.append(criteria(run_dir))
        curve = curve or tenths(training_losses(run_dir), run.training.steps)
        if state != "complete":
            break
    return Outcome(
        state,
        loss=fmean(losses.values()) if state == "complete" else None,
        seeds=losses,
        criteria=mean_criteria(found),
        tenths=curve,
        marks=prune.marks,
        reason=reason,
    )


def run_folders(config: SweepConfig, folder: Path) -> dict[int, Path]:
    """The run folder of each seed; with one seed the trial's own."""
    seeds = config.run_seeds
    return {seed: folder if len(seeds) == 1 else folder / f"seed-{seed}" for seed in seeds}
