"""How a growth is to be done: an operator for each axis, and where new layers go."""

from typing import Any, Literal

from pydantic import Field, model_validator

from teleflm.config.base import Strict
from teleflm.config.model import ModelConfig

Operator = Literal["copy", "clone", "zero", "mask"]
"""What grows a model, in the order in which a growth by several of them applies them."""
WidthOperator = Literal["mask", "clone", "zero"]
DepthOperator = Literal["mask", "zero", "copy"]
Symmetry = Literal["noise", "split", "keep"]
Place = Literal["distance", "even", "stack"]


class WidthConfig(Strict):
    """The operator of each width axis; key-value heads follow `heads`.

    One word stands for all three; as text, `hidden=clone,heads=clone` leaves the others at `mask`.
    """

    hidden: WidthOperator = "mask"
    heads: WidthOperator = "mask"
    ffn: WidthOperator = "mask"

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, data: Any) -> Any:
        if not isinstance(data, str):
            return data
        if "=" not in data:
            return dict.fromkeys(cls.model_fields, data)
        pairs = (item.partition("=") for item in data.split(","))
        return {axis: operator for axis, _, operator in pairs}


class GrowthConfig(Strict):
    """What the run's starting state is grown to before its first step.

    `to` is a full model once resolved. `width` and `depth` are the operators: masks that open over
    `ramp` steps, copies of entries (`clone`) or layers (`copy`), or new ones behind zeros (`zero`).
    `symmetry` says how clones are told apart: by noise in what reads them, by a split of it, or not
    at all (`keep`). `place` says where new layers go: next to the layers whose output is nearest to
    their input (`distance`), evenly, all on top (`stack`), or the parent layer that each new layer
    follows.
    """

    to: ModelConfig
    width: WidthConfig = WidthConfig()
    depth: DepthOperator = "mask"
    place: Place | tuple[int, ...] = "distance"
    ramp: int = Field(default=5000, ge=1)
    symmetry: Symmetry = "noise"


def grown_eps(parent: ModelConfig, to: ModelConfig, width: WidthConfig) -> float:
    """The norms' eps in the target: that of the parent, times d/D where new entries of the stream
    are zeros, which shrink its mean square."""
    if width.hidden != "zero":
        return parent.rms_norm_eps
    return parent.rms_norm_eps * parent.hidden_size / to.hidden_size


def with_grown_eps(parent: ModelConfig, to: ModelConfig, width: WidthConfig) -> ModelConfig:
    """The target, whose eps is still the parent's, with the one that the growth leaves it."""
    if to.rms_norm_eps != parent.rms_norm_eps:
        return to
    return to.model_copy(update={"rms_norm_eps": grown_eps(parent, to, width)})
