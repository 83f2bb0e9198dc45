"""A network made ready to write: its masks folded and its weights cast once, not for each token."""

from collections.abc import Iterable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from teleflm.generation.product import product
from teleflm.model.attention import causal_attention
from teleflm.model.cache import LayerCache, cached_length
from teleflm.model.network import (
    Block,
    Linear,
    RMSNorm,
    TeleFLM,
    masked_bias,
    masked_weight,
)
from teleflm.model.norm import rms_norm
from teleflm.model.rope import apply_rope


class IncrementalDecoder:
    """What `network` computes, one step at a time and for inference only.

    It follows the precision in force where it is made: autocast's, else the weights' own. Weights
    that no mask holds back, in that precision, are read where they lie, so an ordinary network
    costs no memory; others are copied once (under bf16 autocast 2 bytes a parameter). It stands for
    the network as it is: make a new one when weights or masks have moved.
    """

    def __init__(self, network: TeleFLM) -> None:
        kind = network.lm_head.weight.device.type
        dtype = (
            torch.get_autocast_dtype(kind)
            if torch.is_autocast_enabled(kind)
            else network.lm_head.weight.dtype
        )
        self.config = network.config
        self.device = network.lm_head.weight.device
        self._network = network
        blocks = cast("Iterable[Block]", network.model.layers)
        self._layers = [_Layer(block, dtype) for block in blocks]
        self._norm = _Norm(network.model.norm)
        self._head = _Linear(network.lm_head, dtype)
        self._dtype = dtype

    def logits(self, tokens: Tensor, cache: list[LayerCache]) -> Tensor:
        """Logits (B, V) behind the last of token ids (B, S), which follow those in the cache; S is
        1 where it holds some."""
        start = cached_length(cache)
        positions = slice(start, start + tokens.shape[1])
        tables = self._network.model.rope.tables(positions, tokens.device)
        cos, sin = (table.to(self._dtype) for table in tables)
        x = self._network.embed(tokens)
        for layer, kept in zip(self._layers, cache, strict=True):
            x = layer(x, cos, sin, kept)
        # Only the last position's: a prompt's would be its length × 80,000 numbers.
        return self._head(self._norm(x[:, -1])) * self._network.logit_multiplier


class _Norm:
    """An RMSNorm; on a ramp with the effective width in its gain and eps."""

    def __init__(self, norm: RMSNorm) -> None:
        self._gain, self._eps = norm.weight.detach(), norm.eps
        if norm.width_fraction is not None:
            self._gain = self._gain * norm.width_fraction.sqrt()
            self._eps *= norm.width_fraction.item()

    def __call__(self, x: Tensor) -> Tensor:
        return rms_norm(x, self._gain, self._eps)


class _Layer:
    """A Block and its weights."""

    def __init__(self, block: Block, dtype: torch.dtype) -> None:
        attention, mlp = block.self_attn, block.mlp
        self._head_dim = attention.head_dim
        self._has_rope, self._window = attention.has_rope, attention.window
        self._before_attention = _Norm(block.input_layernorm)
        self._q, self._k, self._v, self._o = (
            _Linear(linear, dtype)
            for linear in (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj)
        )
        self._q_norm, self._k_norm = (
            _Norm(norm) if isinstance(norm, RMSNorm) else norm
            for norm in (attention.q_norm, attention.k_norm)
        )
        self._before_mlp = _Norm(block.post_attention_layernorm)
        self._gate, self._up, self._down = (
            _Linear(linear, dtype) for linear in (mlp.gate_proj, mlp.up_proj, mlp.down_proj)
        )

    def __call__(self, x: Tensor, cos: Tensor, sin: Tensor, cache: LayerCache) -> Tensor:
        shape = (*x.shape[:2], -1, self._head_dim)
        y = self._before_attention(x)
        q, k, v = (linear(y).view(shape) for linear in (self._q, self._k, self._v))
        q, k, v = (part.transpose(1, 2) for part in (self._q_norm(q), self._k_norm(k), v))
        if self._has_rope:
            q, k = apply_rope(q, cos, sin), apply_rope(k, cos, sin)
        keys, values = cache.append(k, v)
        y = causal_attention(q, keys, values, self._window)
        x = x + self._o(y.transpose(1, 2).reshape(*x.shape[:2], -1))
        y = self._before_mlp(x)
        return x + self._down(F.silu(self._gate(y)) * self._up(y))


class _Linear:
    """A Linear with its folded weight and bias in `dtype`: themselves, where that is what they
    are."""

    def __init__(self, linear: Linear, dtype: torch.dtype) -> None:
        bias = masked_bias(linear)
        self._weight = masked_weight(linear).detach().to(dtype)
        self._bias = None if bias is None else bias.detach().to(dtype)

    def __call__(self, x: Tensor) -> Tensor:
        return product(x, self._weight, self._bias)
