"""The shape of a model, in Hugging Face's field names."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from teleflm.config.base import Strict
from teleflm.config.rope import RopeScaling, YarnRope

FEATURES = ("qkv_bias", "o_bias", "mlp_bias", "qk_norm", "tie_word_embeddings")
"""Fields of a model that say which parameters it has, whatever its size."""
LAYER_KINDS = ("sliding_layers", "nope_layers")
"""Fields of a model that list layers of a kind."""

# A list is one too: behind a validator pydantic has Python's, and would not take it (2.14).
_Layers = Annotated[tuple[int, ...], Field(strict=False)]


Parametrization = Literal["mup", "standard"]
"""Whether rates, decay, init and logits follow the width (µP), or are the same at every width."""


class ModelConfig(Strict):
    """A Llama-like decoder: RoPE, RMSNorm, SwiGLU. Tele-FLM's own has none of the features that
    `FEATURES` names: biases of queries, keys and values (`qkv_bias`), of the attention's output
    (`o_bias`) and of the MLP (`mlp_bias`), norms of queries and keys by head (`qk_norm`), and an
    embedding that is the head too (`tie_word_embeddings`).

    `num_key_value_heads` defaults to `num_attention_heads` (multi-head attention) and `head_dim`
    to `hidden_size / num_attention_heads`. `rope_scaling` stretches RoPE over a longer context. A
    position of the layers in `sliding_layers` sees the last `sliding_window` ones, its own among
    them, and those in `nope_layers` have no RoPE (SmolLM3).
    `input_mult` scales the embedding output; the logits are scaled by `logit_multiplier`. The two
    `*_init_std` are standard deviations at the µP base width (Tele-FLM, arXiv 2404.16645: 0.004
    vector-like, 0.024 / sqrt(width/256) matrix-like). With `parametrization` standard there is no
    base width: all of these, and the rates, are what they are given as at every width.
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
    rope_scaling: RopeScaling | None = None
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    tie_word_embeddings: bool = False
    sliding_window: int | None = Field(default=None, ge=1)
    sliding_layers: _Layers = ()
    nope_layers: _Layers = ()
    input_mult: float = Field(default=1.0, gt=0)
    output_mult: float = Field(default=1.0, gt=0)
    parametrization: Parametrization = "mup"
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
        for name in LAYER_KINDS:
            named = getattr(self, name)
            if [layer for layer in range(self.num_hidden_layers) if layer in named] != list(named):
                raise ValueError(
                    f"{name} {list(named)}: name layers from 0 to {self.num_hidden_layers - 1}, "
                    "each once and in their order"
                )
        if bool(self.sliding_layers) != (self.sliding_window is not None):
            raise ValueError(
                "sliding_window and sliding_layers go together; give both, or neither of them"
            )
        if isinstance(self.rope_scaling, YarnRope) and self.rope_theta == 1.0:
            raise ValueError(
                "rope_theta 1.0 gives every pair one frequency, which yarn cannot scale"
            )
        return self

    @property
    def has_head(self) -> bool:
        """Whether the head is a matrix of its own."""
        return not self.tie_word_embeddings

    @property
    def queries_per_group(self) -> int:
        """Query heads that share one key-value head."""
        return self.num_attention_heads // self.num_key_value_heads

    def mup_widths(self, effective: float | None = None) -> tuple[float, float]:
        """(width, base): their quotient is m, by which µP divides matrix-like learning rates,
        variances and the logits, and multiplies the decay. (1, 1) where nothing follows the width.

        A pair, so that what is divided by m is rounded once.

        Args:
            effective: the width on a growth's ramp, Σc² over the stream; else `hidden_size`.
        """
        if self.parametrization == "standard":
            return 1, 1
        return self.hidden_size if effective is None else effective, self.mup_base_width

    @property
    def logit_multiplier(self) -> float:
        """What the head's products are scaled by: output_mult / m."""
        width, base = self.mup_widths()
        return self.output_mult * base / width
