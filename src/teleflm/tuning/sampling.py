"""What a trial tries, and whether it goes on: by Optuna, out of what the trial may know.

Optuna's samplers and pruners look at the whole study, whenever they are asked. Here each trial has
a study of its own in memory, of the finished trials that it saw when it began, with a sampler that
is seeded by the trial's number. So its values and its pruning follow from the sweep's seed, the
number and those trials alone, in whatever process and however often it is taken up.
"""

import math
import warnings
from collections.abc import Iterable, Sequence

import numpy as np
import optuna
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from teleflm.config.sweep import Pruner, Sampler, SweepConfig, stored
from teleflm.tuning.space import Space

_SAMPLERS: dict[Sampler, type[RandomSampler] | type[TPESampler]] = {
    "random": RandomSampler,
    "tpe": TPESampler,
}


def choose(
    config: SweepConfig, space: Space, number: int, seen: Iterable[FrozenTrial]
) -> dict[str, object]:
    """The combination of trial `number`, as a study keeps it."""
    if config.sampler == "grid":
        return {key: stored(value) for key, value in space.combination(number).items()}
    (state,) = np.random.SeedSequence([config.seed, number]).generate_state(1)
    study = _study(seen, sampler=_SAMPLERS[config.sampler](seed=int(state)))
    drawn = study.ask(space.distributions).params
    return {axis.key: axis.rounded(drawn[axis.key]) for axis in space.axes}


class Judge:
    """Says after a tenth of a trial whether it is pruned."""

    def __init__(self, pruner: Pruner, seen: Iterable[FrozenTrial]) -> None:
        self._trial = _study(seen, pruner=_pruner(pruner)).ask()

    def prunes(self, tenth: int, loss: float) -> bool:
        """Whether the trial ends here; tenths are told in order, each once.

        One without a finite loss is not judged: `faults` of the run say what that bears.
        """
        if math.isnan(loss):
            return False
        self._trial.report(loss, tenth)
        return self._trial.should_prune()

    @property
    def marks(self) -> dict[str, float]:
        """What the pruner noted of this trial, for those that see it."""
        trial = self._trial.study.trials[-1]
        return {key: value for key, value in trial.system_attrs.items() if "rung" in key}


def _pruner(name: Pruner) -> BasePruner:
    if name == "median":
        return MedianPruner(n_startup_trials=5)
    if name == "halving":
        # After 3 and 6 tenths the better half goes on.
        return SuccessiveHalvingPruner(min_resource=3, reduction_factor=2)
    return NopPruner()


def _study(
    seen: Iterable[FrozenTrial],
    sampler: BaseSampler | None = None,
    pruner: BasePruner | None = None,
) -> optuna.Study:
    study = optuna.create_study(sampler=sampler or RandomSampler(seed=0), pruner=pruner)
    study.add_trials(_as_shown(sorted(seen, key=lambda trial: trial.number)))
    return study


def _as_shown(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Finished trials; a failed one, which Optuna would ignore and so try again next to it, as the
    worst that there can be."""
    shown = []
    for trial in trials:
        failed = trial.state == TrialState.FAIL
        shown.append(
            create_trial(
                state=TrialState.COMPLETE if failed else trial.state,
                value=math.inf if failed else trial.value,
                params=trial.params,
                distributions=trial.distributions,
                system_attrs=trial.system_attrs,
                intermediate_values=trial.intermediate_values,
            )
        )
    return shown


def quiet() -> None:
    """Have Optuna speak of faults alone."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
