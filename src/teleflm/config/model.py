"""The shape of a model, in Hugging Face's field names, and the presets."""

import difflib
import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from teleflm.config.base import Strict, build, read_yaml
from teleflm.config.huggingface import from_huggingface
from teleflm.errors import ConfigError


class ModelConfig(Strict):
    """A Tele-FLM decoder: RoPE, RMSNorm, SwiGLU, no biases, untied embedding and head.

    `num_key_value_heads` defaults to `num_attention_heads` (multi-head attention) and `head_dim`
    to `hidden_size / num_attention_heads`. `input_mult` scales the embedding output; the logits
    are scaled by `logit_multiplier`. The two `*_init_std` are standard deviations at the µP base
    width (Tele-FLM, arXiv 2404.16645: 0.004 vector-like, 0.024 / sqrt(width/256) matrix-like).
    """

    vocab_size: int = Field(default=80_000, ge=1)
    hidden_size: int = Field(ge=1)
    intermediate_size: int = Field(ge=1)
    num_hidden_layers: int = Field(ge=1)
    num_attention_heads: int = Field(ge=1)
    num_key_value_heads: int = Field(ge=1)
    head_dim: int = Field(ge=2)
    max_position_embeddings: int = Field(default=4096, ge=1)
    rms_norm_eps: float = Field(default=1e-5, gt=0)
    rope_theta: float = Field(default=10_000.0, gt=0)
    input_mult: float = Field(default=1.0, gt=0)
    output_mult: float = Field(default=1.0, gt=0)
    mup_base_width: int = Field(default=256, ge=1)
    matrix_init_std: float = Field(default=0.024, gt=0)
    vector_init_std: float = Field(default=0.004, gt=0)

    @model_validator(mode="before")
    @classmethod
    def _fill_in_heads(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        filled = dict(data)
        heads, hidden = filled.get("num_attention_heads"), filled.get("hidden_size")
        if filled.get("num_key_value_heads") is None and heads is not None:
            filled["num_key_value_heads"] = heads
        if filled.get("head_dim") is None and isinstance(heads, int) and isinstance(hidden, int):
            if heads < 1 or hidden % heads:
                raise ValueError(
                    f"hidden_size {hidden} does not divide by num_attention_heads {heads}; "
                    "change one of them or give head_dim"
                )
            filled["head_dim"] = hidden // heads
        return filled

    @model_validator(mode="after")
    def _heads_divide(self) -> "ModelConfig":
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_attention_heads {self.num_attention_heads} does not divide by "
                f"num_key_value_heads {self.num_key_value_heads}; change one of them"
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim {self.head_dim} is odd; RoPE rotates pairs, make it even")
        return self

    @property
    def queries_per_group(self) -> int:
        """Query heads that share one key-value head."""
        return self.num_attention_heads // self.num_key_value_heads

    @property
    def logit_multiplier(self) -> float:
        """What the head's products are scaled by: output_mult / m with m = width / base."""
        return self.output_mult * self.mup_base_width / self.hidden_size


# As the model cards and papers round them; up to 102B they count the FFN as 8d/3 exactly.
PUBLISHED_PARAMETERS = {
    "tele-flm-52b": 52_850_000_000,
    "tele-flm-102b": 102_300_000_000,
    "tele-flm-1t": 1_083_740_000_000,
    "tele-flm-mup": 283_000_000,
}


def preset_names() -> list[str]:
    """The names of the shipped presets."""
    folder = resources.files("teleflm.config") / "presets"
    return sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name[-5:] == ".yaml")


def model_fields(spec: str | Mapping[str, Any]) -> dict[str, Any]:
    """The fields that MODEL gives, before inheritance and defaults.

    Args:
        spec: a preset's name, a YAML file, a folder with a Hugging Face `config.json`, or a
            mapping of fields (with `preset:` for the one that it starts from).

    Raises:
        ConfigError: nothing of that name; the message lists what there is.
    """
    if isinstance(spec, Mapping):
        given = dict(spec)
        base = given.pop("preset", None)
        return {**(model_fields(base) if base is not None else {}), **given}
    if not isinstance(spec, str):
        raise ConfigError(f"model {spec!r}: expected a preset, a path or a mapping of fields")
    if spec in preset_names():
        return read_yaml(Path(str(resources.files("teleflm.config") / "presets" / f"{spec}.yaml")))
    path = Path(spec)
    if (path / "config.json").is_file():
        return from_huggingface(_read_json(path / "config.json"), str(path / "config.json"))
    if path.is_file():
        return read_yaml(path)
    near = difflib.get_close_matches(spec, preset_names(), n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"presets: {', '.join(preset_names())}"
    raise ConfigError(f"model {spec!r}: no preset, YAML file or model folder of that name; {hint}")


def resolve_model(spec: str | Mapping[str, Any], parent: ModelConfig | None = None) -> ModelConfig:
    """The model that `spec` (see `model_fields`) describes.

    With a `parent`, fields that `spec` leaves out are the parent's; a multi-head parent's child
    stays multi-head where only the number of heads is given.

    Raises:
        ConfigError: naming the field at fault.
    """
    fields = model_fields(spec)
    if parent is not None:
        inherited = parent.model_dump()
        if parent.queries_per_group == 1 and "num_attention_heads" in fields:
            del inherited["num_key_value_heads"]
        fields = {**inherited, **fields}
    name = spec if isinstance(spec, str) else "model"
    return build(ModelConfig, fields, str(name))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: not readable as JSON ({error})") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected a JSON object")
    return data
