"""SWEEP.yaml: a run, ranges over some of its keys, and how they are searched."""

import json
import math
from collections.abc import Sequence
from itertools import combinations, product
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from teleflm.config.base import PathText, Strict, apply_overrides, build, read_yaml
from teleflm.config.coordinates import CheckConfig
from teleflm.errors import ConfigError

Sampler = Literal["tpe", "random", "grid"]
Pruner = Literal["none", "median", "halving"]
Seed = Annotated[int, Field(ge=0, lt=2**63)]

# Keys of a RUN.yaml that a range may not be over, and why.
_NOT_SEARCHED = {
    "run_dir": "the sweep sets it",
    "seed": "give seeds instead, over which a trial's loss is averaged",
    "data.path": "on other text a loss cannot be compared",
    "data.tokenizer": "in other tokens a loss cannot be compared",
    "evaluation.tokens": "on other text a loss cannot be compared",
}

# Of a value that is tried.
_DIGITS = 4


class Dimension(Strict):
    """The values of one key: from `low` to `high`, or one of `choices`.

    Both ends belong to a range. With `log` it is even in the logarithm, with `steps` it is so many
    points, evenly apart. Whether a range is of whole numbers, its key in RUN.yaml says.
    """

    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    steps: int | None = Field(default=None, ge=2, le=1000)
    choices: tuple[Any, ...] | None = None

    @model_validator(mode="after")
    def _is_one_kind(self) -> "Dimension":
        if self.choices is not None:
            if self.log or (self.low, self.high, self.steps) != (None, None, None):
                raise ValueError("give choices, or low and high, not both")
            if not self.choices:
                raise ValueError("choices are empty; name at least one value")
            if len(set(map(stored, self.choices))) < len(self.choices):
                raise ValueError(f"choices {list(self.choices)} name a value twice")
            return self
        if self.low is None or self.high is None:
            raise ValueError("a range has low and high; or give choices")
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}; swap them")
        if self.low == self.high:
            raise ValueError(f"low and high are both {self.low}; set the key in run instead")
        if self.log and self.low <= 0:
            raise ValueError(f"a range with log begins above 0 (low is {self.low})")
        return self

    def points(self, whole: bool) -> tuple[Any, ...] | None:
        """All values, None where there are no ends of them; rounded if they are `whole` numbers."""
        if self.choices is not None:
            return self.choices
        if self.steps is None:
            return None
        assert self.low is not None and self.high is not None
        found: list[int | float] = []
        for index in range(self.steps):
            share = index / (self.steps - 1)
            if self.log:
                value = self.low * (self.high / self.low) ** share
            else:
                value = self.low + (self.high - self.low) * share
            found.append(round(value) if whole else self.rounded(value))
        if not whole:
            found[0], found[-1] = float(self.low), float(self.high)
        return tuple(dict.fromkeys(found))

    def rounded(self, value: float) -> float:
        """A value of a range in four digits, which are easily copied, or in as many more as a
        narrow one takes; inside of it."""
        assert self.low is not None and self.high is not None
        ratio = max(abs(self.low), abs(self.high)) / (self.high - self.low)
        digits = _DIGITS + max(0, math.floor(math.log10(ratio)))
        return min(max(float(f"{value:.{digits}g}"), float(self.low)), float(self.high))


def _overlap(key: str, other: str) -> bool:
    """Whether one of two dotted keys is the other, or a part of it."""
    return f"{key}.".startswith(f"{other}.") or f"{other}.".startswith(f"{key}.")


def stored(choice: Any) -> Any:
    """A choice as a study keeps it: what is more than one value as JSON."""
    is_plain = choice is None or isinstance(choice, bool | int | float | str)
    return choice if is_plain else json.dumps(choice, sort_keys=True)


class SweepConfig(Strict):
    """A search over keys of a run.

    Attributes:
        sweep_dir: where everything goes.
        run: RUN.yaml keys of all trials; in a file also the path of a RUN.yaml (see `load_sweep`).
        space: the values of each searched key, by its dotted name.
        trials: how many combinations are tried; of a grid all, unless given.
        seeds: those of a combination's runs, or how many, counted up from the run's own.
        sampler: what proposes a combination: the tree-structured Parzen estimator, chance, or each
            one of a grid in turn.
        pruner: what ends a trial early: nothing, the median of those before it, or halving.
        workers: processes that run trials at a time, on a share of the cores each.
        seed: of the sampler.
        storage: a database's URL, or a journal file's path; else SQLite in `sweep_dir`.
        check: what `--check` measures; the trials know nothing of it.
    """

    sweep_dir: PathText
    run: dict[str, Any]
    space: dict[str, Dimension] = Field(min_length=1)
    trials: int | None = Field(default=None, ge=1)
    seeds: Annotated[int, Field(ge=1)] | tuple[Seed, ...] = 1
    sampler: Sampler = "tpe"
    pruner: Pruner = "none"
    workers: int = Field(default=1, ge=1)
    seed: int = Field(default=0, ge=0, lt=2**32)
    storage: PathText | None = None
    check: CheckConfig = CheckConfig()

    @model_validator(mode="after")
    def _can_be_searched(self) -> "SweepConfig":
        for key, other in product(self.space, _NOT_SEARCHED):
            if _overlap(key, other):
                within = "" if key == other else f"has to do with {other}: "
                raise ValueError(f"space.{key}: {within}{_NOT_SEARCHED[other]}")
        for key, other in combinations(self.space, 2):
            if _overlap(key, other):
                raise ValueError(f"space.{key} and space.{other} set the same; leave one out")
        if self.sampler == "grid":
            for key, dimension in self.space.items():
                if dimension.points(whole=False) is None:
                    raise ValueError(f"space.{key}: a grid needs its steps, or choices")
        elif self.trials is None:
            raise ValueError("trials is missing: say how many combinations are tried")
        if isinstance(self.seeds, tuple) and len(set(self.seeds)) < max(1, len(self.seeds)):
            raise ValueError(f"seeds {list(self.seeds)}: name at least one, and none twice")
        return self

    @property
    def run_seeds(self) -> tuple[int, ...]:
        """The seeds of a combination's runs."""
        if isinstance(self.seeds, tuple):
            return self.seeds
        first = self.run.get("seed", 0)
        return tuple(range(first, first + self.seeds))


def load_sweep(path: Path, overrides: Sequence[str] = ()) -> SweepConfig:
    """The sweep that a SWEEP.yaml describes, with command-line overrides.

    Its key `run` may be the path of a RUN.yaml, from the folder of the sweep on; the `run_dir` in
    that is not used.

    Raises:
        ConfigError: naming the file and the field.
    """
    data = read_yaml(path)
    if isinstance(named := data.get("run"), str):
        try:
            data["run"] = read_yaml(path.parent / named)
        except ConfigError as error:
            raise ConfigError(f"{path}: run: {error}") from None
        data["run"].pop("run_dir", None)
    for override in overrides:
        # The dots in a range's key are not those of the file's own nesting.
        if override.startswith("space."):
            raise ConfigError(
                f"override {override!r}: a range is set in the file, {path}; on the command line "
                "only all of them at once, as 'space={KEY: {low: …, high: …}}'"
            )
    config = build(SweepConfig, apply_overrides(data, overrides), str(path))
    if "run_dir" in config.run:
        raise ConfigError(f"{path}: run.run_dir is set by the sweep itself; leave it out")
    return config
