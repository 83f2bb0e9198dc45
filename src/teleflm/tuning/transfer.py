"""The best of a sweep at another shape: by µP the same keys, as rates are given at base width."""

from typing import Any, NamedTuple

import yaml

from teleflm.config.model import ModelConfig
from teleflm.config.resolve import resolve_model
from teleflm.config.run import RunConfig
from teleflm.errors import ConfigError
from teleflm.tuning.space import Values

# What of a run is one µP family with its sweep, whatever the width. Of the model these, the rest is
# its shape.
_OF_THE_MODEL = (
    "parametrization",
    "mup_base_width",
    "input_mult",
    "output_mult",
    "matrix_init_std",
    "vector_init_std",
)
_OF_THE_SCHEDULE = ("kind", "min_ratio", "decay_fraction")


class Effective(NamedTuple):
    """What a shape computes with, m being its width over the base width."""

    width: int
    m: float
    learning_rate: float
    matrix_learning_rate: float
    matrix_weight_decay: float
    vector_init_std: float
    matrix_init_std: float
    logit_multiplier: float


class Transfer(NamedTuple):
    """A sweep's best at a target.

    Attributes:
        keys: of the target's RUN.yaml, with their values.
        left: searched keys that µP says nothing about, which are not among them.
        proxy, target: what either computes with.
        text: a part of a RUN.yaml.
    """

    keys: Values
    left: list[str]
    proxy: Effective
    target: Effective
    text: str


def transfer(best: RunConfig, searched: Values, to: str) -> Transfer:
    """Carry the run of the best trial over to another model.

    Args:
        best: its run.
        searched: its values of the searched keys.
        to: MODEL, of the target.

    Raises:
        ConfigError: no such model, or the sweep is in standard parametrization.
    """
    proxy = best.final_model
    if proxy.parametrization != "mup":
        raise ConfigError(
            f"--to {to}: model.parametrization is {proxy.parametrization!r}, in which the best "
            "values move with the width; search with mup to carry them over"
        )
    model = {name: getattr(proxy, name) for name in _OF_THE_MODEL}
    target = resolve_model({"preset": to, **model})
    optimizer = best.optimizer.model_dump(mode="json")
    schedule = {name: getattr(best.schedule, name) for name in _OF_THE_SCHEDULE}
    sections = {"model": model, "optimizer": optimizer, "schedule": schedule}
    keys = {
        f"{name}.{key}": value for name, part in sections.items() for key, value in part.items()
    }
    content: dict[str, Any] = {**sections, "model": {"preset": to, **model}}
    return Transfer(
        keys,
        left=[key for key in searched if key not in keys],
        proxy=effective(proxy, best),
        target=effective(target, best),
        text=yaml.safe_dump(content, sort_keys=False),
    )


def effective(model: ModelConfig, run: RunConfig) -> Effective:
    """What a model of the run's µP family computes with under its optimizer."""
    width, base = model.mup_widths()
    m, rates = width / base, run.optimizer
    return Effective(
        width=model.hidden_size,
        m=m,
        learning_rate=rates.learning_rate,
        matrix_learning_rate=rates.matrix_learning_rate / m,
        matrix_weight_decay=rates.weight_decay * m,
        vector_init_std=model.vector_init_std,
        matrix_init_std=model.matrix_init_std / m**0.5,
        logit_multiplier=model.logit_multiplier,
    )
