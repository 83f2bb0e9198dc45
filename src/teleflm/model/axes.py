"""The axes table: each parameter names its axes once, and everything else is read off it.

How a tensor grows, where growth masks fold, whether µP calls it matrix-like or vector-like, its
init, its learning-rate group and its share of a parameter count all follow from `PARAMETERS`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from teleflm.config.model import ModelConfig


class Axis(Enum):
    """A model axis. The attention axes are structured and never grown by their flat index:
    `HEADS` = (group, query in group, head_dim), `KV_HEADS` = (group, head_dim)."""

    VOCAB = "vocab"
    HIDDEN = "hidden"
    HEADS = "heads"
    KV_HEADS = "kv_heads"
    FFN = "ffn"

    @property
    def is_width(self) -> bool:
        """Whether the axis grows with the model's width (µP counts these)."""
        return self is not Axis.VOCAB

    def size(self, model: ModelConfig) -> int:
        """Entries along the axis."""
        if self is Axis.VOCAB:
            return model.vocab_size
        if self is Axis.HIDDEN:
            return model.hidden_size
        if self is Axis.FFN:
            return model.intermediate_size
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
    """

    axes: tuple[Axis, ...]
    folds: tuple[Axis, ...] = ()
    writes_branch: bool = False
    is_gain: bool = False

    @property
    def is_matrix_like(self) -> bool:
        """µP: two width axes. Their learning rate, variance and decay follow the width."""
        return sum(axis.is_width for axis in self.axes) == 2

    def shape(self, model: ModelConfig) -> tuple[int, ...]:
        """The tensor's shape in `model`."""
        return tuple(axis.size(model) for axis in self.axes)

    def init_std(self, model: ModelConfig) -> float:
        """Standard deviation of an ordinary µP init (variance ∝ 1/width where matrix-like)."""
        if self.is_matrix_like:
            return model.matrix_init_std * (model.mup_base_width / model.hidden_size) ** 0.5
        return model.vector_init_std


_V, _H, _Q, _KV, _F = Axis.VOCAB, Axis.HIDDEN, Axis.HEADS, Axis.KV_HEADS, Axis.FFN

PARAMETERS: dict[str, Parameter] = {
    "model.embed_tokens.weight": Parameter((_V, _H), folds=(_H,)),
    "model.layers.*.input_layernorm.weight": Parameter((_H,), is_gain=True),
    "model.layers.*.self_attn.q_proj.weight": Parameter((_Q, _H)),
    "model.layers.*.self_attn.k_proj.weight": Parameter((_KV, _H)),
    "model.layers.*.self_attn.v_proj.weight": Parameter((_KV, _H)),
    "model.layers.*.self_attn.o_proj.weight": Parameter(
        (_H, _Q), folds=(_H, _Q), writes_branch=True
    ),
    "model.layers.*.post_attention_layernorm.weight": Parameter((_H,), is_gain=True),
    "model.layers.*.mlp.gate_proj.weight": Parameter((_F, _H)),
    "model.layers.*.mlp.up_proj.weight": Parameter((_F, _H)),
    "model.layers.*.mlp.down_proj.weight": Parameter((_H, _F), folds=(_H, _F), writes_branch=True),
    "model.norm.weight": Parameter((_H,), is_gain=True),
    "lm_head.weight": Parameter((_V, _H)),
}

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


def parameter_names(model: ModelConfig) -> Iterator[str]:
    """Every parameter name of `model`, in the order of its state dict."""
    patterns = list(PARAMETERS)
    per_layer = [p for p in patterns if "*" in p]
    first = patterns.index(per_layer[0])
    yield from patterns[:first]
    for layer in range(model.num_hidden_layers):
        yield from (pattern.replace("*", str(layer)) for pattern in per_layer)
    yield from patterns[first + len(per_layer) :]


def parameter_count(model: ModelConfig) -> int:
    """Trainable parameters: L(4d² + 3df + 2d) + d + 2Vd for multi-head attention."""
    total = 0
    for pattern, parameter in PARAMETERS.items():
        entries = 1
        for size in parameter.shape(model):
            entries *= size
        total += entries * (model.num_hidden_layers if "*" in pattern else 1)
    return total
