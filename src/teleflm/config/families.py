"""The families of models that are read and written, by what tells them apart."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from teleflm.config.formats import HubKind
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
        own_fields: what only its file has, above all where it keeps the multipliers.
        code: our files that load it, where transformers has no class of its own.
        about: what a model card says of it; None of a plain model.
    """

    architecture: str
    defaults: Mapping[str, Any] = field(default_factory=dict)
    switches: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    always: tuple[str, ...] = ()
    has_multipliers: bool = False
    own_fields: Callable[[ModelConfig], dict[str, Any]] = lambda _: {}
    code: tuple[str, ...] = ()
    about: str | None = None

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


def _of_teleflm(model: ModelConfig) -> dict[str, Any]:
    width, base = model.mup_widths()
    return {
        "auto_map": {
            "AutoConfig": "configuration_teleflm.TeleFLMConfig",
            "AutoModel": "modeling_teleflm.TeleFLMModel",
            "AutoModelForCausalLM": "modeling_teleflm.TeleFLMForCausalLM",
        },
        "pretraining_tp": 1,
        "use_mup": True,
        "input_mult": model.input_mult,
        "output_mult": model.output_mult,
        "mup_scale_factor": width / base,
    }


def _of_granite(model: ModelConfig) -> dict[str, Any]:
    return {
        "embedding_multiplier": model.input_mult,
        "logits_scaling": 1.0 / model.logit_multiplier,
        "attention_multiplier": model.head_dim**-0.5,
        "residual_multiplier": 1.0,
    }


FAMILIES: dict[str, Family] = {
    "TeleFLM": Family(
        "TeleFLMForCausalLM",
        has_multipliers=True,
        own_fields=_of_teleflm,
        code=("configuration_teleflm.py", "modeling_teleflm.py"),
        about="The layout of the released Tele-FLM models, with the code that loads it: read "
        "`modeling_teleflm.py` before you trust it.",
    ),
    "llama": Family(
        "LlamaForCausalLM",
        _LLAMA,
        _TIE | _ATTENTION | _MLP,
        own_fields=lambda _: {"pretraining_tp": 1},
    ),
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
    "granite": Family(
        "GraniteForCausalLM",
        _LLAMA,
        _TIE | _ATTENTION | _MLP,
        has_multipliers=True,
        own_fields=_of_granite,
        about="Granite's architecture computes the same function with the same weights: they are "
        "as trained, and the multipliers stand in the config. No custom code is needed.",
    ),
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


def model_type(kind: HubKind) -> str:
    """The name of a format's family in a `config.json`."""
    return "TeleFLM" if kind == "teleflm" else kind


def family_of(kind: HubKind) -> Family:
    """The family of a format of exports."""
    return FAMILIES[model_type(kind)]


def formats_of(model: ModelConfig) -> list[HubKind]:
    """The formats that can say what `model` is, Granite's first, which leaves weights untouched."""
    return [kind for kind in get_args(HubKind) if not any(_problems(model, kind))]


def check_holds(model: ModelConfig, kind: HubKind) -> None:
    """Refuse a format that cannot say what `model` is.

    Raises:
        ConfigError: naming the field, and the formats that can.
    """
    problem = next(_problems(model, kind), None)
    if problem is not None:
        others = " or ".join(formats_of(model))
        way_out = f"export as {others}" if others else "no other format can either"
        raise ConfigError(f"{problem} cannot be said in the layout of {kind}; {way_out}")


def _problems(model: ModelConfig, kind: HubKind) -> Iterator[str]:
    yield from family_of(kind).lacks(model)
    yield from unsaid_layers(model, kind)
    if kind == "llama" and model.hidden_size % model.num_attention_heads:
        yield (
            f"hidden_size {model.hidden_size}, no multiple of num_attention_heads "
            f"{model.num_attention_heads},"
        )
    if kind == "teleflm" and model.rope_scaling is not None:
        yield f"rope_scaling of the kind {model.rope_scaling.rope_type}"
