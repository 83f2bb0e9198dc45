"""The trials of a sweep: begun, taken up and told, by any number of workers.

They are in an Optuna study, which its own tools read as well. All that a trial may know is written
down when it begins, in one step with its values, under a lock of the sweep's folder. A worker
holds a lock of each trial that it is at, which goes with its process: what is running and not held
was left by one that was killed, and is taken up in its folder.
"""

import fcntl
import math
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.exc import SQLAlchemyError

from teleflm.config.base import write_yaml
from teleflm.config.run import Precision, settled_dtype
from teleflm.config.sweep import SweepConfig
from teleflm.errors import ConfigError, RunLockedError
from teleflm.files import take_lock
from teleflm.model.precision import fast_precision
from teleflm.tuning.sampling import choose, quiet
from teleflm.tuning.space import Space, Values, values_of
from teleflm.tuning.trial import Outcome

CONFIG, DATABASE = "config.yaml", "study.db"
# Another worker begins a trial in a second; at the first one it may be writing the tables.
_PATIENCE = 120.0
# Attributes of the study, and of a trial.
SWEEP, _DTYPE, _UNSEEN, OUTCOME = "sweep", "dtype", "unseen", "outcome"
_STATES = {
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "diverged": TrialState.FAIL,
    "invalid": TrialState.FAIL,
}
# What each line of a journal begins with.
_ENTRY = b'{"op_code":'
# Of the run: what may change while a sweep is under way.
_MAY_CHANGE = ("run_dir", "seed", "checkpoint", "parallel")


class Begun(NamedTuple):
    """A trial to work at: its folder, and the finished trials that it saw when it began."""

    number: int
    values: Values
    folder: Path
    seen: list[FrozenTrial]


class Study:
    """A sweep's study, made where there is none.

    Args:
        config: the sweep.
        space: its keys.

    Raises:
        ConfigError: the storage cannot be opened, or has the trials of another sweep.
    """

    def __init__(self, config: SweepConfig, space: Space) -> None:
        self._config, self._space = config, space
        self._folder = Path(config.sweep_dir)
        self._trials = self._folder / "trials"
        self._trials.mkdir(parents=True, exist_ok=True)
        with self._lock():
            self._storage = open_storage(config)
            self._study = self._found_or_made()
            write_yaml(self._folder / CONFIG, config)

    @property
    def dtype(self) -> Precision:
        """What all trials compute in."""
        found: Precision = self._attributes()[_DTYPE]
        return found

    def trials(self) -> list[FrozenTrial]:
        """All trials so far, by number."""
        found = self._storage.get_all_trials(self._study, deepcopy=False)
        return sorted(found, key=lambda trial: trial.number)

    @contextmanager
    def begin(self) -> Iterator[Begun | None]:
        """Yields a trial to work at, held meanwhile: one that was left, or else a new one; None
        where all are done or at work elsewhere."""
        with ExitStack() as held:
            with self._lock():
                number = self._next(held)
            if number is None:
                yield None
                return
            trials = self.trials()
            mine = trials[number]
            unseen = mine.user_attrs[_UNSEEN]
            seen = [trial for trial in trials[:number] if trial.number not in unseen]
            values = values_of(self._config, mine.params)
            yield Begun(number, values, self._trials / f"{number:04}", seen)

    def finish(self, number: int, outcome: Outcome) -> None:
        """Write down how a trial ended; only then it is seen by others."""
        with self._lock():
            key = self._storage.get_trial_id_from_study_id_trial_number(self._study, number)
            for tenth, loss in outcome.tenths.items():
                self._storage.set_trial_intermediate_value(key, tenth, loss)
            for name, mark in outcome.marks.items():
                self._storage.set_trial_system_attr(key, name, mark)
            self._storage.set_trial_user_attr(key, OUTCOME, record_of(outcome))
            value = outcome.loss
            if outcome.state == "pruned" and outcome.tenths:
                last = list(outcome.tenths.values())[-1]
                value = last if math.isfinite(last) else None
            values = None if value is None else [value]
            self._storage.set_trial_state_values(key, _STATES[outcome.state], values)

    def _next(self, held: ExitStack) -> int | None:
        """The number of a trial that is now held."""
        trials = self.trials()
        for trial in trials:
            if trial.state == TrialState.RUNNING and self._hold(trial.number, held):
                print(f"trial {trial.number} was left; it goes on", file=sys.stderr, flush=True)
                return trial.number
        number = len(trials)
        if number >= self._space.trials:
            return None
        if not self._hold(number, held):
            raise RunLockedError(f"{self._trials}: another process holds trial {number}")
        seen = [trial for trial in trials if trial.state.is_finished()]
        params = choose(self._config, self._space, number, seen)
        unseen = [trial.number for trial in trials if not trial.state.is_finished()]
        begun = create_trial(
            state=TrialState.RUNNING,
            params=params,
            distributions=self._space.distributions,
            user_attrs={_UNSEEN: unseen},
        )
        self._storage.create_new_trial(self._study, begun)
        return number

    def _hold(self, number: int, held: ExitStack) -> bool:
        """Hold a trial, unless a living process does."""
        try:
            held.enter_context(_locked(self._trials / f".{number:04}.lock", 0.0))
        except RunLockedError:
            return False
        return True

    def _lock(self) -> Any:
        return _locked(self._folder / ".lock", _PATIENCE)

    def _attributes(self) -> dict[str, Any]:
        return self._storage.get_study_user_attrs(self._study)

    def _found_or_made(self) -> int:
        """The study in the storage, which is of this sweep.

        Raises:
            ConfigError: it is of another, named by the first key that differs.
        """
        name = study_name(self._config)
        found = [each for each in self._storage.get_all_studies() if each.study_name == name]
        if not found and ((self._folder / CONFIG).exists() or any(self._trials.glob("[0-9]*"))):
            raise ConfigError(
                f"{self._folder}: has a run, or trials whose study is not in the storage; give "
                "another sweep_dir, or the storage that the study is in"
            )
        minimize = [StudyDirection.MINIMIZE]
        study = found[0]._study_id if found else self._storage.create_new_study(minimize, name)
        known, now = self._storage.get_study_user_attrs(study), _identity(self._config, self._space)
        if SWEEP in known:
            _check_same(known[SWEEP], now, self._config)
        elif self._storage.get_n_trials(study):
            raise ConfigError(
                f"{self._folder}: the study {name!r} in its storage has trials that no sweep made; "
                "give sweep_dir another name, which is the study's, or another storage"
            )
        else:
            device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
            base = settled_dtype(self._space.base, fast_precision(device))
            self._storage.set_study_user_attr(study, _DTYPE, base.training.dtype)
            self._storage.set_study_user_attr(study, SWEEP, now)
        return study


def study_name(config: SweepConfig) -> str:
    """The study's name: in a storage that others may use too, that of the sweep's folder."""
    return "sweep" if config.storage is None else Path(config.sweep_dir).resolve().name


def open_storage(config: SweepConfig) -> BaseStorage:
    """The storage of a sweep, made where there is none.

    Raises:
        ConfigError: it cannot be opened.
    """
    quiet()
    where = config.storage or f"sqlite:///{Path(config.sweep_dir, DATABASE)}"
    try:
        if "://" not in where:
            _check_journal(Path(where))
            # The default lock is a link that a killed process leaves behind for ever where the path
            # is relative; this one is taken over after half a minute.
            lock = JournalFileOpenLock(where)
            return JournalStorage(JournalFileBackend(where, lock_obj=lock))
        # Who reads at the same moment is waited for; the default is 5 seconds.
        arguments = {"timeout": _PATIENCE} if where.startswith("sqlite") else {}
        return RDBStorage(where, engine_kwargs={"connect_args": arguments})
    except (ImportError, OSError, ValueError, SQLAlchemyError) as error:
        reason = str(error.__cause__ or error).partition("\n")[0]
        raise ConfigError(
            f"storage {where.partition('@')[2] or where}: cannot be opened ({reason}); give a "
            "database's URL, as postgresql://HOST/NAME, whose driver is installed, or the path of "
            "a journal file"
        ) from None


def _check_journal(path: Path) -> None:
    """Refuse a file that is no journal, to which trials would be appended all the same."""
    if path.is_file():
        with path.open("rb") as file:
            begin = file.read(len(_ENTRY))
        if not _ENTRY.startswith(begin):
            raise ValueError("not a journal of Optuna's")


@contextmanager
def _locked(path: Path, patience: float) -> Iterator[None]:
    with path.open("w") as file:
        take_lock(file, fcntl.LOCK_EX, path.parent, patience)
        yield


def record_of(outcome: Outcome) -> dict[str, Any]:
    """What a study keeps of an outcome beside its own fields."""
    return {
        "state": outcome.state,
        "criteria": outcome.criteria,
        "seeds": {str(seed): loss for seed, loss in outcome.seeds.items()},
        "reason": outcome.reason,
    }


def _identity(config: SweepConfig, space: Space) -> dict[str, Any]:
    """What makes a sweep this one, as plain JSON."""
    run = {k: v for k, v in space.base.model_dump(mode="json").items() if k not in _MAY_CHANGE}
    kept = ("space", "sampler", "pruner", "seed")
    own = {key: config.model_dump(mode="json")[key] for key in kept}
    return {**own, "seeds": list(config.run_seeds), "run": run}


def _check_same(old: dict[str, Any], new: dict[str, Any], config: SweepConfig) -> None:
    for key, before, now in _differences(old, new, ""):
        raise ConfigError(
            f"{config.sweep_dir}: its study has {key} = {before!r}, this sweep {now!r}; keep the "
            "value to go on with it, or give another sweep_dir"
        )


def _differences(old: Any, new: Any, key: str) -> Iterator[tuple[str, Any, Any]]:
    """The keys that differ. A key of the run that one of them does not know, a release added."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in dict.fromkeys([*old, *new]):
            if (name in old and name in new) or key == "space.":
                below = f"{key}{name}."
                yield from _differences(old.get(name), new.get(name), below)
    elif old != new:
        yield key.removesuffix("."), old, new
