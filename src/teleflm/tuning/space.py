"""What a sweep searches: each key's values, and the run that a combination of them is."""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from teleflm.config.base import set_value
from teleflm.config.run import RunConfig, with_vocabulary
from teleflm.config.sweep import Dimension, SweepConfig, stored
from teleflm.data.mixture import open_domains
from teleflm.errors import ConfigError
from teleflm.training.start import resolve_config

Values = dict[str, Any]
"""A combination: the value of each searched key, as RUN.yaml has it."""

# Runs of a grid that are looked at before the first trial.
_LOOKED_AT = 4096


@dataclass(frozen=True)
class Axis:
    """One searched key. `is_whole` says whether its values are whole numbers."""

    key: str
    dimension: Dimension
    is_whole: bool

    @property
    def points(self) -> tuple[Any, ...] | None:
        """All values, None in a range without steps."""
        return self.dimension.points(self.is_whole)

    @property
    def ends(self) -> tuple[Any, ...]:
        """All values, or the first and the last of a range without steps."""
        return self.points or (self.dimension.low, self.dimension.high)

    @property
    def distribution(self) -> BaseDistribution:
        """What Optuna draws from; points as choices, as `stored`."""
        dimension = self.dimension
        if self.points is not None:
            return CategoricalDistribution([stored(point) for point in self.points])
        assert dimension.low is not None and dimension.high is not None
        if self.is_whole:
            return IntDistribution(int(dimension.low), int(dimension.high), log=dimension.log)
        return FloatDistribution(dimension.low, dimension.high, log=dimension.log)

    def rounded(self, drawn: Any) -> Any:
        """A drawn value in few digits, inside of the range."""
        is_short = self.points is not None or self.is_whole
        return drawn if is_short else self.dimension.rounded(drawn)


class Space:
    """The keys of a sweep and its run.

    Args:
        config: the sweep.
        source: where it was read, for messages.

    Raises:
        ConfigError: naming the key and the value with which a run makes no sense. The ends of each
            range and all choices are looked at, the others at their first; of a grid all trials.
        DataError, CheckpointError: what the run reads is not there.
    """

    def __init__(self, config: SweepConfig, source: str) -> None:
        self._config, self._source = config, source
        first = first_values(config)
        self._vocabulary: int | None = None
        self.base = self._checked(first)
        data = self.base.data
        self._vocabulary = open_domains(data.path, data.tokenizer).vocab_size
        # By name: in whatever order a file has them, the same is drawn.
        self.axes = [
            Axis(key, config.space[key], isinstance(_at(self.base, key), int))
            for key in sorted(config.space)
        ]
        self._checked(first)
        for axis in self.axes:
            for end in axis.ends:
                self._checked({**first, axis.key: end}, axis.key)
        if config.sampler == "grid":
            for number in range(min(self.trials, _LOOKED_AT)):
                self._checked(self.combination(number))

    @cached_property
    def trials(self) -> int:
        """How many trials the sweep has."""
        asked = self._config.trials or math.inf
        if self._config.sampler != "grid":
            return int(asked)
        return int(min(asked, math.prod(len(axis.points or ()) for axis in self.axes)))

    @cached_property
    def _order(self) -> list[int]:
        # Shuffled: the first of them are to tell of all, to a pruner and to a reader.
        size = math.prod(len(axis.points or ()) for axis in self.axes)
        return np.random.default_rng(self._config.seed).permutation(size).tolist()

    def combination(self, number: int) -> Values:
        """The combination of a grid that trial `number` has."""
        points = [axis.points or () for axis in self.axes]
        place = np.unravel_index(self._order[number], [len(each) for each in points])
        chosen = [each[at] for each, at in zip(points, place, strict=True)]
        return dict(zip((axis.key for axis in self.axes), chosen, strict=True))

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """What Optuna draws from, by key."""
        return {axis.key: axis.distribution for axis in self.axes}

    def _checked(self, values: Values, key: str | None = None) -> RunConfig:
        try:
            run = run_of(self._config, values, Path(self._config.sweep_dir), self._seed)
            with_vocabulary(run, self._vocabulary)
            return run
        except ConfigError as error:
            about = values if key is None else {key: values[key]}
            told = ", ".join(f"{name} = {value!r}" for name, value in about.items())
            raise ConfigError(f"{self._source}: with {told}: {error}") from None

    @property
    def _seed(self) -> Any:
        # Not yet known to be a number.
        seeds = self._config.seeds
        return seeds[0] if isinstance(seeds, tuple) else self._config.run.get("seed", 0)


def first_values(config: SweepConfig) -> Values:
    """The first value of each key: where its range begins, or its first choice."""
    return {
        key: each.low if each.choices is None else each.choices[0]
        for key, each in config.space.items()
    }


def first_run(config: SweepConfig, source: str) -> RunConfig:
    """The run of the first values, for its model and optimizer; its data need not be there.

    Raises:
        ConfigError: it makes no sense.
        CheckpointError: there is no such checkpoint as it starts from.
    """
    try:
        return run_of(config, first_values(config), Path(config.sweep_dir), 0)
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from None


def run_of(config: SweepConfig, values: Values, run_dir: Path, seed: int) -> RunConfig:
    """The run of a combination.

    Raises:
        ConfigError: these values together make no run.
        CheckpointError: there is no such checkpoint as it starts from.
    """
    data = copy.deepcopy(config.run)
    for key, value in values.items():
        set_value(data, key, value)
    return resolve_config({**data, "run_dir": str(run_dir), "seed": seed}, "run")


def _at(run: RunConfig, dotted: str) -> Any:
    """The value of a key in a run, None where it is none of a field of its own."""
    node: Any = run.model_dump()
    for key in dotted.split("."):
        if not isinstance(node, dict) or key not in node:
            return None
        node = node[key]
    return node


def values_of(config: SweepConfig, params: Mapping[str, Any]) -> Values:
    """A combination as a study keeps it, as RUN.yaml has it."""
    return {key: _as_given(each, params[key]) for key, each in config.space.items()}


def _as_given(dimension: Dimension, value: Any) -> Any:
    for choice in dimension.choices or ():
        if stored(choice) == value and isinstance(stored(choice), type(value)):
            return choice
    return value
