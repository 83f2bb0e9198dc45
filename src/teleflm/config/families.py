"""The families of models that are read and written, by what tells them apart."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from teleflm.config.formats import ExportKind
from teleflm.config.layers import unsaid_layers
from teleflm.config.model import FEATURES, ModelConfig
from teleflm.errors import ConfigError

_Switches = dict[str, tuple[str, ...]]
_TIE: _Switches = {"tie_word_embeddings": ("tie_word_embeddings",)}
_ATTENTION: _Switches = {"attention_bias": ("qkv_bias", "o_bias")}
_MLP: _Switches = {"mlp_bias": ("mlp_bias",)}
_LLAMA = {"vocab_size": 32_000, "max_position_embeddings": 2048, "rms_norm_eps": 1e-6}
_QWEN = {
    "vocab_size": 151_936,
    "max_position_embeddings": 32_768,
    "rms_norm_eps": 1e-6,
    "num_key_value_heads": 32,
    "sliding_window": 4096,
}


@dataclass(frozen=True)
class Family:
    """What a `config.json` of one `model_type` means.

    Attributes:
        architecture: transformers' class.
        defaults: what its own code takes where the file is silent. Ours differ, and an eps ten
            times too large or an ignored window would be another function without a word.
        switches: which of our features each field of the file has on or off.
        always: the features that all models of it have.
        has_multipliers: whether the file can say what embedding and logits are multiplied by.
    """

    architecture: str
    defaults: Mapping[str, Any] = field(default_factory=dict)
    switches: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    always: tuple[str, ...] = ()
    has_multipliers: bool = False

    def features(self, data: Mapping[str, Any]) -> dict[str, bool]:
        """Our features in a file with its defaults filled in."""
        return {
            **dict.fromkeys(FEATURES, False),
            **dict.fromkeys(self.always, True),
            **{name: bool(data.get(key)) for key, names in self.switches.items() for name in names},
        }

    def settings(self, model: ModelConfig) -> dict[str, bool]:
        """The fields of the file that say which features `model` has."""
        return {
            key: any(getattr(model, name) for name in names) for key, names in self.switches.items()
        }

    def lacks(self, model: ModelConfig) -> Iterator[str]:
        """The features of `model` that no file of this family says: `qk_norm = True`."""
        for name, value in self.features(self.settings(model)).items():
            if getattr(model, name) != value:
                together = next(
                    (names for names in self.switches.values() if name in names), (name,)
                )
                yield " with ".join(f"{each} = {getattr(model, each)}" for each in together)


FAMILIES: dict[str, Family] = {
    "TeleFLM": Family("TeleFLMForCausalLM", has_multipliers=True),
    "llama": Family("LlamaForCausalLM", _LLAMA, _TIE | _ATTENTION | _MLP),
    "mistral": Family(
        "MistralForCausalLM",
        {
            **_LLAMA,
            "max_position_embeddings": 131_072,
            "num_key_value_heads": 8,
            "sliding_window": 4096,
        },
        _TIE,
    ),
    "granite": Family("GraniteForCausalLM", _LLAMA, _TIE | _ATTENTION | _MLP, has_multipliers=True),
    "qwen2": Family("Qwen2ForCausalLM", _QWEN, _TIE, always=("qkv_bias",)),
    "qwen3": Family(
        "Qwen3ForCausalLM", {**_QWEN, "head_dim": 128}, _TIE | _ATTENTION, always=("qk_norm",)
    ),
    "smollm3": Family(
        "SmolLM3ForCausalLM",
        {
            "vocab_size": 128_256,
            "max_position_embeddings": 32_768,
            "rms_norm_eps": 1e-6,
            "num_key_value_heads": 4,
            "rope_theta": 2_000_000.0,
            "tie_word_embeddings": True,
        },
        _TIE | _ATTENTION | _MLP,
    ),
}
"""By `model_type`."""


def family_of(kind: ExportKind) -> Family:
    """The family of a format of exports."""
    return FAMILIES["TeleFLM" if kind == "teleflm" else kind]


def formats_of(model: ModelConfig) -> list[ExportKind]:
    """The formats that can say what `model` is, Granite's first, which leaves weights untouched."""
    return [kind for kind in get_args(ExportKind) if not any(_problems(model, kind))]


def check_holds(model: ModelConfig, kind: ExportKind) -> None:
    """Refuse a format that cannot say what `model` is.

    Raises:
        ConfigError: naming the field, and the formats that can.
    """
    problem = next(_problems(model, kind), None)
    if problem is not None:
        others = " or ".join(formats_of(model))
        way_out = f"export as {others}" if others else "no other format can either"
        raise ConfigError(f"{problem} cannot be said in the layout of {kind}; {way_out}")


def _problems(model: ModelConfig, kind: ExportKind) -> Iterator[str]:
    yield from family_of(kind).lacks(model)
    yield from unsaid_layers(model, kind)
    if kind == "llama" and model.hidden_size % model.num_attention_heads:
        yield (
            f"hidden_size {model.hidden_size}, no multiple of num_attention_heads "
            f"{model.num_attention_heads},"
        )
    if kind == "teleflm" and model.rope_scaling is not None:
        yield f"rope_scaling of the kind {model.rope_scaling.rope_type}"
