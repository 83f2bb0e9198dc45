"""What a sweep found: its trials, the best of them, the noise, and how much each key matters."""

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, variance
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from teleflm.config.base import build, read_yaml
from teleflm.config.sweep import SweepConfig
from teleflm.errors import ConfigError, DataError
from teleflm.tuning.criteria import Criteria
from teleflm.tuning.space import Values, run_of, values_of
from teleflm.tuning.study import CONFIG, DATABASE, OUTCOME, SWEEP, open_storage, study_name
from teleflm.tuning.transfer import transfer

# With fewer the best tenth of them is one trial, which says nothing of keys.
_ENOUGH = 10
_CRITERIA = tuple(Criteria.__dataclass_fields__)

Facts = dict[str, Any]


def read_sweep(sweep_dir: Path) -> tuple[SweepConfig, list[FrozenTrial]]:
    """The sweep of a folder and its trials so far, whether or not it is under way.

    Raises:
        ConfigError, DataError: no sweep is there, or its storage cannot be opened.
    """
    path = sweep_dir / CONFIG
    if not path.is_file():
        raise DataError(f"{sweep_dir}: no {CONFIG} in there; name the sweep_dir of a sweep")
    # It may have been moved since.
    config = build(SweepConfig, {**read_yaml(path), "sweep_dir": str(sweep_dir)}, str(path))
    if config.storage is None and not (sweep_dir / DATABASE).is_file():
        raise DataError(f"{sweep_dir}: {DATABASE} is gone, and with it what the trials came to")
    storage = open_storage(config)
    name = study_name(config)
    studies = [each for each in storage.get_all_studies() if each.study_name == name]
    if not studies or SWEEP not in studies[0].user_attrs:
        raise DataError(
            f"{sweep_dir}: its storage has no study {name!r} of a sweep; was the folder renamed?"
        )
    found = storage.get_all_trials(studies[0]._study_id, deepcopy=False)
    return config, sorted(found, key=lambda trial: trial.number)


def findings(config: SweepConfig, trials: Sequence[FrozenTrial], to: str | None = None) -> Facts:
    """All that the terminal, the page and the JSON say of a sweep.

    Args:
        config: the sweep.
        trials: those of its study.
        to: MODEL that the best is carried over to.

    Raises:
        ConfigError: there is no such model, or nothing to carry over yet.
    """
    told = [_told(config, trial) for trial in trials]
    complete = [trial for trial in told if trial["state"] == "complete"]
    best = min(complete, key=lambda trial: trial["loss"], default=None)
    facts: Facts = {
        "sweep_dir": config.sweep_dir,
        "space": {key: each.model_dump(mode="json") for key, each in config.space.items()},
        "best": best and best["values"],
        "best_trial": best and best["number"],
        "best_loss": best and best["loss"],
        "trials": told,
        "noise": _noise(complete, best),
        "importances": _importances(trials),
    }
    if to is not None:
        if best is None:
            raise ConfigError(f"--to {to}: no trial of {config.sweep_dir} is complete yet")
        facts |= _transferred(config, best["values"], to)
    return facts


def _told(config: SweepConfig, trial: FrozenTrial) -> Facts:
    outcome = trial.user_attrs.get(OUTCOME, {})
    is_over = trial.state.is_finished()
    criteria = outcome.get("criteria", {}) if is_over else {}
    return {
        "number": trial.number,
        "state": outcome["state"] if is_over else "running",
        "values": values_of(config, trial.params),
        "loss": trial.value if trial.state == TrialState.COMPLETE else None,
        **{name: criteria.get(name) for name in _CRITERIA},
        "seeds": outcome.get("seeds", {}) if is_over else {},
        "reason": outcome.get("reason", "") if is_over else "",
    }


def _noise(complete: Sequence[Facts], best: Facts | None) -> Facts | None:
    """How much the loss of one combination differs by seed; None with one seed."""
    several = [list(each["seeds"].values()) for each in complete if len(each["seeds"]) > 1]
    if not several or best is None:
        return None
    deviation = math.sqrt(fmean(map(variance, several)))
    # Twice the standard deviation of a difference between two means.
    margin = 2 * deviation * math.sqrt(2 / len(several[0]))
    return {
        "standard_deviation": deviation,
        "margin": margin,
        "as_good": [e["number"] for e in complete if e["loss"] - best["loss"] <= margin],
    }


def _importances(trials: Sequence[FrozenTrial]) -> dict[str, float]:
    """Shares of the keys in what tells the best quarter from all, by PED-ANOVA (arXiv 2304.10255);
    empty where there are too few trials."""
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    if len(complete) < _ENOUGH:
        return {}
    study = optuna.create_study()
    study.add_trials(complete)
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=0.25)
    return optuna.importance.get_param_importances(study, evaluator=evaluator)


def _transferred(config: SweepConfig, best: Values, to: str) -> Facts:
    run = run_of(config, best, Path(config.sweep_dir), config.run_seeds[0])
    found = transfer(run, best, to)
    return {
        "to": to,
        "transferred": found.keys,
        "left": found.left,
        "effective": {"proxy": found.proxy._asdict(), "target": found.target._asdict()},
        "yaml": found.text,
    }
