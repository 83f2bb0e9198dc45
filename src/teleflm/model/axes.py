"""The axes table: each parameter names its axes once, and everything else is read off it.

How a tensor grows, where growth masks fold, whether µP calls it matrix-like or vector-like, its
init, its learning-rate group and its share of a parameter count all follow from `PARAMETERS`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from math import prod

from teleflm.config.model import ModelConfig


class Axis(Enum):
    """A model axis. The attention axes are structured and never grown by their flat index:
    `HEADS` = (group, query in group, head_dim), `KV_HEADS` = (group, head_dim). `HEAD_DIM` is that
    of one head, which all have in common; it never grows."""

    VOCAB = "vocab"
    HIDDEN = "hidden"
    HEADS = "heads"
    KV_HEADS = "kv_heads"
    HEAD_DIM = "head_dim"
    FFN = "ffn"

    @property
    def is_width(self) -> bool:
        """Whether the axis grows with the model's width (µP counts these)."""
        return self not in (Axis.VOCAB, Axis.HEAD_DIM)

    def size(self, model: ModelConfig) -> int:
        """Entries along the axis."""
        if self is Axis.VOCAB:
            return model.vocab_size
        if self is Axis.HIDDEN:
            return model.hidden_size
        if self is Axis.FFN:
            return model.intermediate_size
        if self is Axis.HEAD_DIM:
            return model.head_dim
        heads = model.num_attention_heads if self is Axis.HEADS else model.num_key_value_heads
        return heads * model.head_dim


@dataclass(frozen=True)
class Parameter:
    """One row of the table.

    Attributes:
        axes: the axis of each tensor dim, output first.
        folds: the axes whose growth mask multiplies this tensor: hidden where it writes the
            residual stream, heads and FFN where it reads them.
        writes_branch: its output is a layer's branch, so a new layer's mask multiplies it.
        is_gain: an RMSNorm gain, ones at init.
        feeds_norm: where the model has norms by head, the output goes into one, so that its scale
            is free.
        if_model: the property of a model that says whether it has this; every model where None.
    """

    axes: tuple[Axis, ...]
    folds: tuple[Axis, ...] = ()
    writes_branch: bool = False
    is_gain: bool = False
    feeds_norm: bool = False
    if_model: str | None = None

    @property
    def is_matrix(self) -> bool:
        """Whether it has two axes; gains and biases have one."""
        return len(self.axes) == 2

    @property
    def is_stream_gain(self) -> bool:
        """Whether it is the gain of a norm over the residual stream, not of one by head."""
        return self.is_gain and Axis.HIDDEN in self.axes

    @property
    def is_matrix_like(self) -> bool:
        """µP: two width axes. Their learning rate, variance and decay follow the width."""
        return sum(axis.is_width for axis in self.axes) == 2

    def is_on_eps_scale(self, model: ModelConfig) -> bool:
        """Whether it is multiplied by s where a norm's mean square and eps become s² of what they
        were: the stream's gains, and what goes into a norm by head."""
        return self.is_stream_gain or (self.feeds_norm and model.qk_norm)

    def shape(self, model: ModelConfig) -> tuple[int, ...]:
        """The tensor's shape in `model`."""
        return tuple(axis.size(model) for axis in self.axes)

    def init_std(self, model: ModelConfig) -> float:
        """Standard deviation of an ordinary init (µP's variance ∝ 1/width where matrix-like)."""
        if self.is_matrix_like:
            width, base = model.mup_widths()
            return model.matrix_init_std * (base / width) ** 0.5
        return model.vector_init_std


_V, _H, _Q, _KV, _D = Axis.VOCAB, Axis.HIDDEN, Axis.HEADS, Axis.KV_HEADS, Axis.HEAD_DIM
_F = Axis.FFN
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
LAST_GAIN = "model.norm.weight"

PARAMETERS: dict[str, Parameter] = {
    EMBEDDING: Parameter((_V, _H), folds=(_H,)),
    "model.layers.*.input_layernorm.weight": Parameter((_H,), is_gain=True),
    "model.layers.*.self_attn.q_proj.weight": Parameter((_Q, _H), feeds_norm=True),
    "model.layers.*.self_attn.q_proj.bias": Parameter((_Q,), feeds_norm=True, if_model="qkv_bias"),
    "model.layers.*.self_attn.k_proj.weight": Parameter((_KV, _H), feeds_norm=True),
    "model.layers.*.self_attn.k_proj.bias": Parameter((_KV,), feeds_norm=True, if_model="qkv_bias"),
    "model.layers.*.self_attn.v_proj.weight": Parameter((_KV, _H)),
    "model.layers.*.self_attn.v_proj.bias": Parameter((_KV,), if_model="qkv_bias"),
    "model.layers.*.self_attn.o_proj.weight": Parameter(
        (_H, _Q), folds=(_H, _Q), writes_branch=True
    ),
    "model.layers.*.self_attn.o_proj.bias": Parameter(
        (_H,), folds=(_H,), writes_branch=True, if_model="o_bias"
    ),
    "model.layers.*.self_attn.q_norm.weight": Parameter((_D,), is_gain=True, if_model="qk_norm"),
    "model.layers.*.self_attn.k_norm.weight": Parameter((_D,), is_gain=True, if_model="qk_norm"),
    "model.layers.*.post_attention_layernorm.weight": Parameter((_H,), is_gain=True),
    "model.layers.*.mlp.gate_proj.weight": Parameter((_F, _H)),
    "model.layers.*.mlp.gate_proj.bias": Parameter((_F,), if_model="mlp_bias"),
    "model.layers.*.mlp.up_proj.weight": Parameter((_F, _H)),
    "model.layers.*.mlp.up_proj.bias": Parameter((_F,), if_model="mlp_bias"),
    "model.layers.*.mlp.down_proj.weight": Parameter((_H, _F), folds=(_H, _F), writes_branch=True),
    "model.layers.*.mlp.down_proj.bias": Parameter(
        (_H,), folds=(_H,), writes_branch=True, if_model="mlp_bias"
    ),
    LAST_GAIN: Parameter((_H,), is_gain=True),
    HEAD: Parameter((_V, _H), if_model="has_head"),
}
"""All that a model may have; see `parameters_of` for what one has."""

_LAYER = re.compile(r"(?<=model\.layers\.)\d+(?=\.)")


def pattern_of(name: str) -> str:
    """The table's key for a parameter name: the layer number becomes `*`."""
    return _LAYER.sub("*", name)


def parameter_of(name: str) -> Parameter:
    """The table's row for a parameter name."""
    return PARAMETERS[pattern_of(name)]


def layer_of(name: str) -> int | None:
    """The layer number in a parameter name, None outside the layers."""
    match = _LAYER.search(name)
    return int(match.group()) if match else None


def in_layer(name: str, layer: int) -> str:
    """The same parameter of another layer."""
    return _LAYER.sub(str(layer), name)


def parameters_of(model: ModelConfig) -> dict[str, Parameter]:
    """The rows of the table that `model` has."""
    return {
        pattern: parameter
        for pattern, parameter in PARAMETERS.items()
        if parameter.if_model is None or getattr(model, parameter.if_model)
    }


def own_name(model: ModelConfig, name: str) -> str:
    """The name of the parameter that a tensor of the network is: a tied head is the embedding."""
    return EMBEDDING if name == HEAD and not model.has_head else name


def parameter_names(model: ModelConfig) -> Iterator[str]:
    """Every parameter name of `model`, in the order of its state dict."""
    patterns = list(parameters_of(model))
    per_layer = [p for p in patterns if "*" in p]
    first = patterns.index(per_layer[0])
    yield from patterns[:first]
    for layer in range(model.num_hidden_layers):
        yield from (pattern.replace("*", str(layer)) for pattern in per_layer)
    yield from patterns[first + len(per_layer) :]


def parameter_count(model: ModelConfig) -> int:
    """Trainable parameters: L(4d² + 3df + 2d) + d + 2Vd for multi-head attention."""
    return sum(
        prod(parameter.shape(model)) * (model.num_hidden_layers if "*" in pattern else 1)
        for pattern, parameter in parameters_of(model).items()
    )
