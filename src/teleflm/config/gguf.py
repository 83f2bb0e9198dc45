"""What llama.cpp's architectures can hold, and a model's shape under the keys of a GGUF file.

Read off llama.cpp's own code (`src/models/*.cpp`), as a GGUF file is what that makes of it: biases,
factors of RoPE and multipliers that an architecture does not read would be ignored without a word,
or keep the file from loading.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from teleflm.config.families import formats_of
from teleflm.config.formats import HubKind
from teleflm.config.model import ModelConfig
from teleflm.config.rope import LinearRope, Llama3Rope, YarnRope
from teleflm.errors import ConfigError

# Values that a file need not, and for these architectures cannot, give.
_BETAS = (32.0, 1.0)
_NOPE_INTERVAL = 4


@dataclass(frozen=True)
class Architecture:
    """An architecture of llama.cpp.

    Attributes:
        name: its own.
        pairs_neighbours: RoPE turns dims 2i and 2i + 1 together, not i and i + head_dim / 2 as ours
            and Hugging Face's: rows of queries and keys change places.
        biases: of our features those that it reads.
        has_multipliers: whether it has a place for them.
        reads_factors: whether it reads a factor for each of RoPE's frequencies (Llama 3).
        leaves_out_rope: every fourth layer is without RoPE, whatever a file says.
        heads_fill_hidden: its heads together are as wide as the model.
    """

    name: str
    pairs_neighbours: bool = True
    biases: tuple[str, ...] = ("qkv_bias", "o_bias", "mlp_bias")
    has_multipliers: bool = False
    reads_factors: bool = True
    leaves_out_rope: bool = False
    heads_fill_hidden: bool = False

    def lacks(self, model: ModelConfig) -> Iterator[str]:
        """What of `model` it has not."""
        if model.sliding_layers:
            yield f"sliding_window = {model.sliding_window}"
        every = range(_NOPE_INTERVAL - 1, model.num_hidden_layers, _NOPE_INTERVAL)
        if model.nope_layers != (tuple(every) if self.leaves_out_rope else ()):
            has_not = f"no RoPE in the layers {', '.join(map(str, model.nope_layers)) or 'none'}"
            yield f"{has_not}, where it leaves out every {_NOPE_INTERVAL}th"
        for bias in ("o_bias", "mlp_bias"):
            if getattr(model, bias) and bias not in self.biases:
                yield f"{bias} = True"
        width = model.num_attention_heads * model.head_dim
        if self.heads_fill_hidden and width != model.hidden_size:
            yield f"heads that are {width} wide together in a hidden_size of {model.hidden_size}"
        scaling = model.rope_scaling
        if isinstance(scaling, Llama3Rope) and not self.reads_factors:
            yield "rope_scaling of the kind llama3"
        if isinstance(scaling, YarnRope) and (
            not scaling.truncate or (scaling.beta_fast, scaling.beta_slow) != _BETAS
        ):
            yield "yarn with betas other than 32 and 1, or not truncated,"


_LLAMA = Architecture("llama")
_BY_KIND: dict[HubKind, Architecture] = {
    "granite": Architecture("granite", has_multipliers=True),
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": Architecture(
        "qwen2", False, ("qkv_bias",), reads_factors=False, heads_fill_hidden=True
    ),
    "qwen3": Architecture("qwen3", False, ("qkv_bias",), reads_factors=False),
    "smollm3": Architecture("smollm3", True, ("qkv_bias",), False, False, leaves_out_rope=True),
}


def architecture_of(model: ModelConfig) -> Architecture:
    """The architecture that is `model`: of its own family, and Granite only for multipliers.

    Raises:
        ConfigError: there is none, naming what each of its families lacks.
    """
    held = [kind for kind in formats_of(model) if kind in _BY_KIND]
    if (model.input_mult, model.logit_multiplier) == (1.0, 1.0):
        held.sort(key=lambda kind: kind == "granite")
    for kind in held:
        if not any(_BY_KIND[kind].lacks(model)):
            return _BY_KIND[kind]
    reasons = [f"{_BY_KIND[kind].name} {'; '.join(_BY_KIND[kind].lacks(model))}" for kind in held]
    others = " or ".join(formats_of(model))
    raise ConfigError(
        "gguf: no architecture of llama.cpp holds this model "
        f"({'; '.join(reasons) or 'its features are of no family'})"
        + (f"; export as {others}" if others else "")
    )


def shape_keys(model: ModelConfig, architecture: Architecture) -> dict[str, int | float | str]:
    """The shape under a GGUF file's keys, without the architecture's name before them."""
    fields: dict[str, int | float | str] = {
        "vocab_size": model.vocab_size,
        "context_length": model.max_position_embeddings,
        "embedding_length": model.hidden_size,
        "block_count": model.num_hidden_layers,
        "feed_forward_length": model.intermediate_size,
        "attention.head_count": model.num_attention_heads,
        "attention.head_count_kv": model.num_key_value_heads,
        "attention.key_length": model.head_dim,
        "attention.value_length": model.head_dim,
        "attention.layer_norm_rms_epsilon": float(model.rms_norm_eps),
        "rope.dimension_count": model.head_dim,
        "rope.freq_base": float(model.rope_theta),
        **_rope_keys(model),
    }
    if architecture.has_multipliers:
        # llama.cpp divides by logit_scale, as Granite does by logits_scaling.
        fields |= {
            "embedding_scale": float(model.input_mult),
            "logit_scale": 1.0 / model.logit_multiplier,
            "attention.scale": model.head_dim**-0.5,
            "residual_scale": 1.0,
        }
    return fields


def _rope_keys(model: ModelConfig) -> dict[str, int | float | str]:
    scaling = model.rope_scaling
    if isinstance(scaling, LinearRope):
        return {"rope.scaling.type": "linear", "rope.scaling.factor": float(scaling.factor)}
    if isinstance(scaling, YarnRope):
        # It multiplies by YaRN's own attention factor for the stretch, and by this one.
        own = 0.1 * math.log(scaling.factor) + 1.0 if scaling.factor > 1 else 1.0
        return {
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": float(scaling.factor),
            "rope.scaling.original_context_length": scaling.original_max_position_embeddings,
            "rope.scaling.attn_factor": scaling.attention_factor / own,
        }
    return {}
