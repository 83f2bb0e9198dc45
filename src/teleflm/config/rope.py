"""RoPE whose frequencies are scaled for a longer context, as model files write it."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from teleflm.config.base import Strict
from teleflm.errors import ConfigError

_Factor = Annotated[float, Field(gt=0)]
_Context = Annotated[int, Field(ge=1)]


class LinearRope(Strict):
    """Every frequency divided by `factor`."""

    rope_type: Literal["linear"]
    factor: _Factor


class Llama3Rope(Strict):
    """Wavelengths above the original context / `low_freq_factor` times `factor`, those below it /
    `high_freq_factor` as they are, and between the two a mixture (Llama 3.1)."""

    rope_type: Literal["llama3"]
    factor: _Factor
    low_freq_factor: _Factor
    high_freq_factor: _Factor
    original_max_position_embeddings: _Context

    @model_validator(mode="after")
    def _high_is_higher(self) -> "Llama3Rope":
        if self.high_freq_factor <= self.low_freq_factor:
            raise ValueError("high_freq_factor must be more than low_freq_factor; correct the file")
        return self


class YarnRope(Strict):
    """YaRN (arXiv 2309.00071): dims that turn more than `beta_fast` times within the original
    context as they are, those that turn less than `beta_slow` times divided by `factor`, and a line
    between the two, whose ends are whole dims where `truncate`. Cosine and sine are multiplied by
    `attention_factor`."""

    rope_type: Literal["yarn"]
    factor: _Factor
    original_max_position_embeddings: _Context
    attention_factor: _Factor
    beta_fast: _Factor = 32.0
    beta_slow: _Factor = 1.0
    truncate: bool = True


RopeScaling = Annotated[LinearRope | Llama3Rope | YarnRope, Field(discriminator="rope_type")]

_KINDS: dict[str, type[Strict]] = {"linear": LinearRope, "llama3": Llama3Rope, "yarn": YarnRope}
_FIELDS = ("rope_scaling", "rope_parameters")


def read_rope(data: Mapping[str, Any], source: str) -> tuple[Any, dict[str, Any] | None]:
    """(theta, our field `rope_scaling`) of a `config.json`, as transformers 5 reads it: what is in
    `rope_scaling` counts, else what is in `rope_parameters`; theta is beside it, else at the top
    level, else 10,000. Theta is not checked.

    Raises:
        ConfigError: a kind that we do not compute, a part of the head's dims, or values that differ
            by layer.
    """
    field = next((field for field in _FIELDS if data.get(field)), None)
    if field is not None and not isinstance(data[field], Mapping):
        raise ConfigError(
            f"{source}: {field} is {data[field]!r} and not an object with its kind and numbers; "
            "correct the file"
        )
    given = dict(data[field]) if field is not None else {}
    thetas = (given.get("rope_theta"), data.get("rope_theta"), 10_000.0)
    theta = next(theta for theta in thetas if theta is not None)
    partial = given.get("partial_rotary_factor", data.get("partial_rotary_factor"))
    if partial is not None and partial != 1:
        raise ConfigError(
            f"{source}: partial_rotary_factor = {partial!r} is not part of this architecture; a "
            "model that uses it cannot be read"
        )
    nested = next((key for key, value in given.items() if isinstance(value, Mapping)), None)
    if nested is not None:
        raise ConfigError(
            f"{source}: {field} is given by kind of layer ({nested}), which is not part of this "
            "architecture; a model that uses it cannot be read"
        )
    kind = given.get("rope_type", given.get("type", "default")) or "default"
    if kind != "default" and kind not in _KINDS:
        raise ConfigError(
            f"{source}: {field} is of the kind {kind!r}, and only default, {', '.join(_KINDS)} can "
            "be read"
        )
    if kind == "default":
        return theta, None
    if data.get("model_type") == "TeleFLM":
        raise ConfigError(f"{source}: {field} is not part of a TeleFLM model; remove it")
    return theta, {"rope_type": kind, **_scaling(kind, given, data)}


def _scaling(kind: str, given: dict[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a kind, with the defaults that hold where the file is silent."""
    context = data.get("max_position_embeddings")
    original = data.get("original_max_position_embeddings")
    if original is None:
        original = given.get("original_max_position_embeddings", context)
    given = {**given, "original_max_position_embeddings": original}
    if kind == "yarn":
        if given.get("factor") is None and context is not None:
            given["factor"] = context / original
        if given.get("attention_factor") is None:
            given["attention_factor"] = _attention_factor(given)
    known = [field for field in _KINDS[kind].model_fields if field != "rope_type"]
    return {field: given[field] for field in known if given.get(field) is not None}


def _attention_factor(given: Mapping[str, Any]) -> float:
    """YaRN's, where the file does not give it."""
    scale, one, other = given.get("factor"), given.get("mscale"), given.get("mscale_all_dim")

    def grown(by: float) -> float:
        return 1.0 if scale is None or scale <= 1 else 0.1 * by * math.log(scale) + 1.0

    return grown(one) / grown(other) if one and other else grown(1.0)
