"""Between our model fields and Hugging Face's `config.json`.

Only names and multipliers differ; the function is the same where nothing is refused here.
"""

import math
import sys
from collections.abc import Mapping
from typing import Any

from teleflm.config.families import FAMILIES, check_holds, family_of, model_type
from teleflm.config.formats import HubKind
from teleflm.config.layers import read_layers, write_layers
from teleflm.config.model import ModelConfig
from teleflm.config.rope import read_rope
from teleflm.errors import ConfigError

# µP's base width is part of our models; foreign files say only what the logits are scaled by.
_BASE_WIDTH = 256
_SHARED = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "max_position_embeddings",
    "rms_norm_eps",
)
_REQUIRED = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")


def from_huggingface(data: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Our fields of the model that a `config.json` describes.

    Raises:
        ConfigError: another architecture, a field of it that our network does not have, or a
            damaged file.
    """
    try:
        return _fields(data, source)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise ConfigError(
            f"{source}: a value of the wrong kind ({error}); the file is damaged: copy or download "
            "it again"
        ) from None


def _fields(data: Mapping[str, Any], source: str) -> dict[str, Any]:
    kind = data.get("model_type")
    if kind not in FAMILIES:
        raise ConfigError(
            f"{source}: model_type {kind!r} is not one of {', '.join(FAMILIES)}; "
            "only Llama-like decoders can be read"
        )
    family = FAMILIES[kind]
    data = {**family.defaults, **data}
    for key in _REQUIRED:
        if not isinstance(data.get(key), int) or data[key] < 1:
            raise ConfigError(
                f"{source}: {key} is {data.get(key)!r}, not a positive whole number; the file is "
                "damaged: copy or download it again"
            )
    _refuse_foreign_features(data, source)
    fields = {key: data[key] for key in _SHARED if data.get(key) is not None}
    theta, fields["rope_scaling"] = read_rope(data, source)
    fields["rope_theta"] = _number({"rope_theta": theta}, "rope_theta", theta, source)
    fields |= family.features(data) | read_layers(data, source)
    fields["input_mult"], fields["output_mult"] = _multipliers(data, source)
    return fields


def weight_folds(data: Mapping[str, Any], model: ModelConfig, source: str) -> dict[str, float]:
    """What the file's weights are to be multiplied by to be those of `model`, by the pattern of the
    parameter; 1 where it is not listed.

    Granite adds a layer's branches times r = residual_multiplier and takes the softmax of qk·a with
    a = attention_multiplier. Ours adds them as they are and takes it of qk/√head_dim. Both
    are linear, so o_proj and down_proj × r and q_proj × a·√head_dim are the same function, their
    biases too.

    Raises:
        ConfigError: a multiplier that is no positive number.
    """
    if data["model_type"] != "granite":
        return {}
    residual = _number(data, "residual_multiplier", 1.0, source)
    query = _number(data, "attention_multiplier", 1.0, source) * model.head_dim**0.5
    if math.isclose(query, 1.0, rel_tol=1e-15):
        query = 1.0  # 1/√head_dim, but for its rounding
    modules = {"self_attn.q_proj": query, "self_attn.o_proj": residual, "mlp.down_proj": residual}
    return {
        f"model.layers.*.{module}.{kind}": factor
        for module, factor in modules.items()
        for kind in ("weight", "bias")
        if factor != 1.0
    }


def to_huggingface(model: ModelConfig, kind: HubKind) -> dict[str, Any]:
    """The `config.json` of `model` as an export of that kind, without token ids and dtype.

    theta stands at the top level, where every release of transformers reads it.

    Raises:
        ConfigError: a shape that the format cannot hold.
    """
    check_holds(model, kind)
    return {
        "architectures": [family_of(kind).architecture],
        "model_type": model_type(kind),
        **{key: getattr(model, key) for key in _SHARED},
        "rope_theta": model.rope_theta,
        "rope_scaling": model.rope_scaling.model_dump() if model.rope_scaling else None,
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "tie_word_embeddings": False,
        "use_cache": True,
        **family_of(kind).settings(model),
        **write_layers(model, kind),
        **family_of(kind).own_fields(model),
    }


def _number(data: Mapping[str, Any], key: str, default: float, source: str) -> float:
    """A positive, finite number of the file."""
    value = data.get(key, default)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 < value <= sys.float_info.max:
        raise ConfigError(f"{source}: {key} is {value!r}, not a positive number; correct the file")
    return float(value)


def _refuse_foreign_features(data: Mapping[str, Any], source: str) -> None:
    switches = FAMILIES[data["model_type"]].switches
    refused = {
        **{
            field: bool(data.get(field)) and field not in switches
            for field in ("tie_word_embeddings", "attention_bias", "mlp_bias")
        },
        "quantization_config": data.get("quantization_config") is not None,
        "hidden_act": data.get("hidden_act", "silu") not in ("silu", "swish"),
    }
    for field, is_foreign in refused.items():
        if is_foreign:
            raise ConfigError(
                f"{source}: {field} = {data.get(field)!r} is not part of this architecture; a "
                "model that uses it cannot be read"
            )


def _multipliers(data: Mapping[str, Any], source: str) -> tuple[float, float]:
    """(input_mult, output_mult), the latter at our base width, from what the file applies."""
    width = data["hidden_size"] / _BASE_WIDTH
    if data["model_type"] == "granite":
        scaling = _number(data, "logits_scaling", 1.0, source)
        return _number(data, "embedding_multiplier", 1.0, source), width / scaling
    if data["model_type"] == "TeleFLM" and data.get("use_mup", False):
        # The ratio first: it is 1 where the file has our base, and output_mult stays exact.
        ratio = width / _number(data, "mup_scale_factor", 1.0, source)
        output_mult = _number(data, "output_mult", 1.0, source) * ratio
        return _number(data, "input_mult", 1.0, source), output_mult
    return 1.0, width
