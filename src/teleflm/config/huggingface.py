"""Between our model fields and Hugging Face's `config.json` of TeleFLM, Llama, Mistral and Granite.

Only names and multipliers differ; the function is the same where nothing is refused here.
"""

import math
import sys
from collections.abc import Mapping
from typing import Any, Literal

from teleflm.config.model import ModelConfig
from teleflm.config.rope import read_rope
from teleflm.errors import ConfigError

ExportKind = Literal["granite", "llama", "teleflm"]

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
# What each family's own code takes where its file is silent. Ours differ, and an eps ten times
# too large or an ignored window would be another function without a word.
_LLAMA_DEFAULTS = {"vocab_size": 32_000, "max_position_embeddings": 2048, "rms_norm_eps": 1e-6}
_FAMILY_DEFAULTS: dict[str, dict[str, Any]] = {
    "TeleFLM": {},
    "llama": _LLAMA_DEFAULTS,
    "mistral": {
        **_LLAMA_DEFAULTS,
        "max_position_embeddings": 131_072,
        "num_key_value_heads": 8,
        "sliding_window": 4096,
    },
    "granite": _LLAMA_DEFAULTS,
}


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
    if kind not in _FAMILY_DEFAULTS:
        raise ConfigError(
            f"{source}: model_type {kind!r} is not one of {', '.join(_FAMILY_DEFAULTS)}; "
            "only Llama-like decoders can be read"
        )
    data = {**_FAMILY_DEFAULTS[kind], **data}
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
    fields["input_mult"], fields["output_mult"] = _multipliers(data, source)
    return fields


def weight_folds(data: Mapping[str, Any], model: ModelConfig, source: str) -> dict[str, float]:
    """What the file's weights are to be multiplied by to be those of `model`, by the pattern of the
    parameter; 1 where it is not listed.

    Granite adds a layer's branches times r = residual_multiplier and takes the softmax of qk·a with
    a = attention_multiplier. Ours adds them as they are and takes it of qk/√head_dim. Both
    are linear, so o_proj and down_proj × r and q_proj × a·√head_dim are the same function.

    Raises:
        ConfigError: a multiplier that is no positive number.
    """
    if data["model_type"] != "granite":
        return {}
    residual = _number(data, "residual_multiplier", 1.0, source)
    query = _number(data, "attention_multiplier", 1.0, source) * model.head_dim**0.5
    if math.isclose(query, 1.0, rel_tol=1e-15):
        query = 1.0  # 1/√head_dim, but for its rounding
    folds = {
        "model.layers.*.self_attn.q_proj.weight": query,
        "model.layers.*.self_attn.o_proj.weight": residual,
        "model.layers.*.mlp.down_proj.weight": residual,
    }
    return {pattern: factor for pattern, factor in folds.items() if factor != 1.0}


def to_huggingface(model: ModelConfig, kind: ExportKind) -> dict[str, Any]:
    """The `config.json` of `model` as an export of that kind, without token ids and dtype.

    theta stands at the top level, where every release of transformers reads it.

    Raises:
        ConfigError: a shape that the format cannot hold.
    """
    if kind == "llama" and model.hidden_size % model.num_attention_heads:
        raise ConfigError(
            f"hidden_size {model.hidden_size} is not a multiple of num_attention_heads "
            f"{model.num_attention_heads}, and transformers' Llama refuses such a shape; "
            "export as granite or teleflm"
        )
    if kind == "teleflm" and model.rope_scaling is not None:
        raise ConfigError(
            f"rope_scaling of the kind {model.rope_scaling.rope_type} is not part of the TeleFLM "
            "layout; export as granite or llama"
        )
    return {
        **_identity(kind),
        **{key: getattr(model, key) for key in _SHARED},
        "rope_theta": model.rope_theta,
        "rope_scaling": model.rope_scaling.model_dump() if model.rope_scaling else None,
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "tie_word_embeddings": False,
        "use_cache": True,
        **_own_fields(model, kind),
    }


def _identity(kind: ExportKind) -> dict[str, Any]:
    if kind != "teleflm":
        architecture = {"granite": "GraniteForCausalLM", "llama": "LlamaForCausalLM"}[kind]
        return {"architectures": [architecture], "model_type": kind}
    return {
        "architectures": ["TeleFLMForCausalLM"],
        "model_type": "TeleFLM",
        "auto_map": {
            "AutoConfig": "configuration_teleflm.TeleFLMConfig",
            "AutoModel": "modeling_teleflm.TeleFLMModel",
            "AutoModelForCausalLM": "modeling_teleflm.TeleFLMForCausalLM",
        },
    }


def _own_fields(model: ModelConfig, kind: ExportKind) -> dict[str, Any]:
    """What only this kind has: above all, where it keeps the multipliers."""
    if kind == "llama":
        return {"mlp_bias": False, "pretraining_tp": 1}  # the multipliers are in the weights
    if kind == "granite":
        return {
            "mlp_bias": False,
            "embedding_multiplier": model.input_mult,
            "logits_scaling": 1.0 / model.logit_multiplier,
            "attention_multiplier": model.head_dim**-0.5,
            "residual_multiplier": 1.0,
        }
    return {
        "pretraining_tp": 1,
        "use_mup": True,
        "input_mult": model.input_mult,
        "output_mult": model.output_mult,
        "mup_scale_factor": model.hidden_size / model.mup_base_width,
    }


def _number(data: Mapping[str, Any], key: str, default: float, source: str) -> float:
    """A positive, finite number of the file."""
    value = data.get(key, default)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 < value <= sys.float_info.max:
        raise ConfigError(f"{source}: {key} is {value!r}, not a positive number; correct the file")
    return float(value)


def _refuse_foreign_features(data: Mapping[str, Any], source: str) -> None:
    window = data.get("sliding_window")
    refused = {
        "tie_word_embeddings": bool(data.get("tie_word_embeddings")),
        "attention_bias": bool(data.get("attention_bias")),
        "mlp_bias": bool(data.get("mlp_bias")),
        "quantization_config": data.get("quantization_config") is not None,
        # A window as wide as the context hides nothing.
        "sliding_window": window is not None and window < data["max_position_embeddings"],
        "hidden_act": data.get("hidden_act", "silu") not in ("silu", "swish"),
    }
    for field, is_foreign in refused.items():
        if is_foreign:
            way_out = "a model that uses it cannot be read"
            if field == "tie_word_embeddings":
                way_out = "`teleflm import --untie` makes the head a copy of the embedding"
            raise ConfigError(
                f"{source}: {field} = {data.get(field)!r} is not part of this architecture; "
                f"{way_out}"
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
