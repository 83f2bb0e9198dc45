"""The plan of a series: what each stage takes, and the same tokens from scratch."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

from teleflm.config.base import apply_overrides, read_yaml
from teleflm.config.cluster import ClusterConfig
from teleflm.config.run import RunConfig, resolve_run
from teleflm.config.series import load_series
from teleflm.errors import ConfigError, GrowthError
from teleflm.growth.plan import growth_steps
from teleflm.model.flops import flops_per_token
from teleflm.planning.plan import Plan
from teleflm.planning.plan import plan as plan_of
from teleflm.planning.run import TOKENS_PER_PARAMETER
from teleflm.planning.search import search

# To a tenth, steps of up to so much in parameters are the reliable ones (arXiv 2605.13405).
_RELIABLE_STEP = 2.0


@dataclass(frozen=True)
class Effort:
    """What a training takes.

    Attributes:
        tokens: that it reads.
        flops: of the model, what is computed again left out.
        days, gpu_hours: without evaluation, saving and standstills.
        cost: by the cluster's price, None without one.
    """

    tokens: float
    flops: float
    days: float
    gpu_hours: float
    cost: float | None

    def __add__(self, other: "Effort") -> "Effort":
        """One after the other."""
        return Effort(
            self.tokens + other.tokens,
            self.flops + other.flops,
            self.days + other.days,
            self.gpu_hours + other.gpu_hours,
            None if self.cost is None or other.cost is None else self.cost + other.cost,
        )

    def times(self, factor: float) -> "Effort":
        """The same for so many times the tokens."""
        return Effort(
            self.tokens * factor,
            self.flops * factor,
            self.days * factor,
            self.gpu_hours * factor,
            None if self.cost is None else self.cost * factor,
        )


@dataclass(frozen=True)
class Stage:
    """A stage of a series on its layout."""

    name: str
    plan: Plan

    @cached_property
    def effort(self) -> Effort:
        """What it takes."""
        config = self.plan.config
        tokens = config.training.steps * config.tokens_per_step
        flops = tokens * flops_per_token(config.final_model, config.data.sequence_length)
        return Effort(tokens, flops, self.plan.days, self.plan.gpu_hours, self.plan.cost)


@dataclass(frozen=True)
class BreakEven:
    """When growing pays, by GPU-hours: they are what is paid for, and unlike FLOPs they say how
    well each stage's layout uses the machines.

    Attributes:
        tokens: that the last model would read from scratch for the GPU-hours of the series.
        earlier_tokens: that the stages before the last one read.
        earlier_token_worth: growing pays if one of these is worth at least so much of a token at
            the last size: at so much, the series' tokens are worth `tokens` of the last model's.
    """

    tokens: float
    earlier_tokens: float
    earlier_token_worth: float


@dataclass(frozen=True)
class SeriesPlan:
    """A series, stage by stage."""

    stages: tuple[Stage, ...]

    @cached_property
    def total(self) -> Effort:
        """What all stages take."""
        first, *others = (stage.effort for stage in self.stages)
        return sum(others, first)

    @cached_property
    def scratch(self) -> Effort:
        """What the last model takes that reads all of the series' tokens, from scratch, on the
        layout and with the batch of the last stage."""
        last = self.stages[-1].effort
        return last.times(self.total.tokens / last.tokens)

    @property
    def break_even(self) -> BreakEven | None:
        """None of a series that does not grow."""
        last = self.stages[-1].effort
        earlier = self.total.tokens - last.tokens
        if not earlier:
            return None
        tokens = last.tokens * self.total.gpu_hours / last.gpu_hours
        return BreakEven(tokens, earlier, (tokens - last.tokens) / earlier)

    @property
    def warnings(self) -> list[str]:
        """What speaks against this series, each with its source."""
        read = 0.0
        found: list[str] = []
        for before, after in pairwise(self.stages):
            read += before.effort.tokens
            found += _about_growth(before, after, read)
        if len(self.stages) > 1:
            found += _about_the_end(self.stages[-1])
        return found


def _about_growth(before: Stage, after: Stage, read: float) -> Iterator[str]:
    size = before.plan.parameters
    ratio = after.plan.parameters / size
    if round(ratio, 1) > _RELIABLE_STEP:
        yield (
            f"{before.name} → {after.name}: {ratio:.1f} times the parameters; growths by up to "
            f"{_RELIABLE_STEP:g} are the reliable ones (arXiv 2605.13405). A stage between would "
            "make smaller ones."
        )
    if read > TOKENS_PER_PARAMETER * size:
        yield (
            f"{before.name} → {after.name}: it grows after {read / size:.1f} tokens a parameter; "
            f"beyond {TOKENS_PER_PARAMETER} the gains of growing fade (arXiv 2605.13405), and what "
            "is trained for too long saturates (arXiv 2510.06548). Grow earlier."
        )
    run = after.plan.config
    assert run.growth is not None, "SeriesConfig requires a growth in every later stage"
    if "mask" in _operators(run) and run.growth.ramp > run.training.steps:
        yield (
            f"{after.name}: growth.ramp {run.growth.ramp:,} is longer than its "
            f"{run.training.steps:,} steps: it ends with masks half open, and cannot be grown "
            "from there. Shorten the ramp."
        )


def _about_the_end(last: Stage) -> Iterator[str]:
    each = last.effort.tokens / last.plan.parameters
    if each < 1:
        yield (
            f"{last.name}: reads {each:.2g} tokens a parameter after it has grown. New weights "
            "need steps: with 0.12 in all, the model before the growth was the better use of the "
            "same FLOPs (docs/growth_study.md)."
        )


@dataclass(frozen=True)
class Evidence:
    """A saving that was measured: on what, how much, and where it is written."""

    what: str
    saving: str
    source: str


EVIDENCE = (
    Evidence("MSG, masks", "2.2 times (BERT-large), 1.4 times (GPT-2)", "arXiv 2305.02869"),
    Evidence("HyperCloning, clones", "2.2 to 4 times, up to 2.8B", "arXiv 2409.12903"),
    Evidence(
        "FLM-101B, 16B → 51B → 101B",
        "3.56 times in days at equal tokens, not at equal loss",
        "arXiv 2309.03852",
    ),
    Evidence(
        "teleflm, masks",
        "at least 1.95 times fewer FLOPs to equal loss, at one tiny size where not growing at all "
        "was better still",
        "docs/growth_study.md",
    ),
)


def is_series(spec: str) -> bool:
    """Whether a file is a SERIES.yaml: it has the key `stages`."""
    path = Path(spec)
    return path.is_file() and "stages" in read_yaml(path)


def planned_series(path: Path, overrides: Sequence[str] = ()) -> dict[str, RunConfig]:
    """The runs of a SERIES.yaml by their stages' names, each from the model that the one before
    ends with.

    Args:
        path: the file.
        overrides: `key.sub=value` of a RUN.yaml, laid over every stage.

    Raises:
        ConfigError: naming the file or the stage, and the field.
        GrowthError: a stage cannot be grown to from the one before.
    """
    series = load_series(path)
    runs: dict[str, RunConfig] = {}
    parent = None
    for index, name in enumerate(series.stage_names()):
        data = apply_overrides({**series.stage_run(index), "run_dir": "planned"}, overrides)
        run = resolve_run(data, f"{path}: stage {name}", parent)
        try:
            _operators(run)
        except GrowthError as error:
            raise GrowthError(f"{path}: stage {name}: {error}") from None
        runs[name], parent = run, run.final_model
    return runs


def _operators(run: RunConfig) -> list[str]:
    """That the growth of a run is done by, in order."""
    growth = run.growth
    if growth is None:
        return []
    steps = growth_steps(run.model, growth.to, growth.width, growth.depth)
    return [step.operator for step in steps]


def plan_series(
    runs: dict[str, RunConfig], cluster: ClusterConfig, searched: bool = False
) -> SeriesPlan:
    """The plan of a series' stages.

    Args:
        runs: by the stages' names, in order.
        cluster: what all of them are on, one after the other.
        searched: each stage on the best layout that the search finds for it; else on its own.

    Raises:
        ConfigError: see `plan` and `search`, naming the stage.
    """
    planned: Callable[[RunConfig, ClusterConfig], Plan] = _best if searched else plan_of
    stages: list[Stage] = []
    for name, run in runs.items():
        try:
            stages.append(Stage(name, planned(run, cluster)))
        except ConfigError as error:
            raise ConfigError(f"stage {name}: {error}") from None
    return SeriesPlan(tuple(stages))


def _best(config: RunConfig, cluster: ClusterConfig) -> Plan:
    found = search(config, cluster)[0].plan
    assert found is not None, "search raises where there is none"
    return found
