"""The coordinate check: whether a model's coordinates depend on its width as µP says.

From a family of models by width, the slope of each quantity's logarithm over that of the width. µP
(arXiv 2203.03466) promises none of them in the limit of great width, but that of the first logits:
a head of one std for all widths, read by 1/m, gives 1/√width.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from teleflm.config.coordinates import CheckConfig
from teleflm.config.model import ModelConfig
from teleflm.config.run import OptimizerConfig
from teleflm.growth.ramp import ramp_at
from teleflm.growth.state import TrainingState
from teleflm.tuning.coordinates import Coordinates, Means, measure, small_rates
from teleflm.tuning.proxies import half_open, proxy, untrained

_LOGITS_AT_INIT = -0.5


@dataclass(frozen=True)
class Slope:
    """A slope, and what it is to be; nothing where µP over width promises nothing."""

    name: str
    value: float
    theory: float | None

    def is_right(self, tolerance: float) -> bool:
        """Whether it is what it is to be; one that is not finite is not."""
        return self.theory is None or abs(self.value - self.theory) <= tolerance


@dataclass(frozen=True)
class Family:
    """What was measured of one family of models.

    Attributes:
        name: `width`, `ramp` (masks half open, over the effective width) or `depth`.
        sizes: of its models: widths, or layers.
        levels, updates: by quantity, for each size by step; means over seeds.
        shrinkage: by class of parameter, for each size.
    """

    name: str
    sizes: list[float]
    levels: dict[str, list[list[float]]]
    updates: dict[str, list[list[float]]]
    shrinkage: dict[str, list[float]]

    def slopes(self, tied: bool) -> Iterator[Slope]:
        """At init, after the last step, and of decay."""
        for kind, values in self.levels.items():
            theory: float | None = 0.0
            if kind == "logits":
                # What reads a tied head has it in itself: neither alike nor independent.
                theory = None if tied else _LOGITS_AT_INIT
            yield self._slope(f"init/{kind}", [each[0] for each in values], theory)
        for kind, values in self.updates.items():
            yield self._slope(f"update/{kind}", [each[-1] for each in values], 0.0)
        for kind, shares in self.shrinkage.items():
            yield self._slope(f"decay/{kind}", shares, 0.0)

    def _slope(self, name: str, values: Sequence[float], theory: float | None) -> Slope:
        judged = None if self.name == "depth" else theory
        return Slope(f"{self.name}/{name}", _slope(self.sizes, values), judged)


@dataclass(frozen=True)
class CheckResult:
    """What the check found: `passed` where every slope is what it is to be."""

    config: CheckConfig
    model: ModelConfig
    families: list[Family]

    @property
    def slopes(self) -> list[Slope]:
        """Of all families."""
        tied = not self.model.has_head
        return [slope for family in self.families for slope in family.slopes(tied)]

    @property
    def wrong(self) -> list[Slope]:
        """Those that are not what they are to be."""
        return [slope for slope in self.slopes if not slope.is_right(self.config.tolerance)]

    @property
    def passed(self) -> bool:
        """Whether there are none of those."""
        return not self.wrong

    def to_json(self) -> dict[str, Any]:
        """`slopes`, `passed`, what theory says, and what was measured; null is no finite number."""
        slopes = self.slopes
        return {
            "passed": self.passed,
            "slopes": {slope.name: _plain(slope.value) for slope in slopes},
            "theory": {slope.name: slope.theory for slope in slopes if slope.theory is not None},
            "wrong": [slope.name for slope in self.wrong],
            "tolerance": self.config.tolerance,
            "families": [_plain(vars(family)) for family in self.families],
        }


def check(
    model: ModelConfig,
    optimizer: OptimizerConfig,
    config: CheckConfig,
    *,
    advance: Callable[[int], object] = lambda _: None,
) -> CheckResult:
    """Check how coordinates depend on the width, on half-open ramps and, unjudged, on the depth.

    Args:
        model: what the proxies are like; its size does not matter.
        optimizer: betas, eps and clip of its run; rates are small ones (see `small_rates`).
        config: sizes, steps and bounds.
        advance: told of each model that is measured (see `models`).
    """
    rates, narrowest = small_rates(model, optimizer), config.widths[0]

    def at(width: int, layers: int = config.layers) -> ModelConfig:
        return proxy(model, width, layers, narrowest)

    def of(width: int, seed: int) -> TrainingState:
        return untrained(at(width), seed)

    def grown(width: int, seed: int) -> TrainingState:
        return half_open(at(width // 2), at(width), seed)

    def deep(layers: int, seed: int) -> TrainingState:
        return untrained(at(config.widths[1], layers), seed)

    families = []
    for name, sizes, state_of in (
        ("width", config.widths, of),
        ("ramp", config.widths, grown),
        ("depth", config.depths if len(config.depths) > 1 else (), deep),
    ):
        if sizes:
            families.append(_family(name, sizes, state_of, rates, config, advance))
    return CheckResult(config, model, families)


def models(config: CheckConfig) -> int:
    """How many models a check measures."""
    depths = len(config.depths) if len(config.depths) > 1 else 0
    return config.seeds * (2 * len(config.widths) + depths)


def _family(
    name: str,
    sizes: Sequence[int],
    state_of: Callable[[int, int], TrainingState],
    rates: OptimizerConfig,
    config: CheckConfig,
    advance: Callable[[int], object],
) -> Family:
    found: list[list[Coordinates]] = []
    places: list[float] = []
    for size in sizes:
        of_seeds = []
        for seed in range(config.seeds):
            state = state_of(size, seed)
            of_seeds.append(measure(state, rates, config.steps, seed))
            advance(1)
        found.append(of_seeds)
        ramp = ramp_at(state.model, state.lineage, state.step)
        places.append(size if name == "depth" else ramp.effective_width)
    return Family(
        name,
        places,
        _by_quantity([[each.levels for each in seeds] for seeds in found]),
        _by_quantity([[each.updates for each in seeds] for seeds in found]),
        {
            kind: [_mean([each.shrinkage[kind] for each in seeds]) for seeds in found]
            for kind in ("matrix", "vector")
            if name != "depth"
        },
    )


def _by_quantity(found: Sequence[Sequence[Sequence[Means]]]) -> dict[str, list[list[float]]]:
    """From size, seed and step to quantity, size and step; means over seeds."""
    return {
        kind: [
            [_mean([means[kind] for means in step]) for step in zip(*seeds, strict=True)]
            for seeds in found
        ]
        for kind in found[0][0][0]
    }


def _plain(value: Any) -> Any:
    """Without numbers that JSON does not have, as those of a model that blew up."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _slope(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Of log value over log size, by least squares; not a number where a value has no logarithm."""
    if not all(math.isfinite(value) and value > 0 for value in values):
        return math.nan
    x, y = np.log(sizes), np.log(values)
    x = x - x.mean()
    return float((x * y).sum() / (x * x).sum())
