"""A network made ready to write: its masks folded and its weights cast once, not for each token."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import accumulate
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from teleflm.generation.cache import Cache
from teleflm.generation.int8 import Int8Linear
from teleflm.generation.product import packed, product
from teleflm.model.attention import causal_attention
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

Weights = Literal["fp32", "bf16", "int8"]
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.float32}
# Of prompts that are read together; more would be no faster and take their memory.
_TOKENS_AT_ONCE = 4096

_Product = Callable[[Tensor], Tensor]
# Attention of queries on keys and values (B, heads, S, d) with a window, and all that it keeps.
_Attend = Callable[[Tensor, Tensor, Tensor, int | None], Tensor]


class IncrementalDecoder:
    """What `network` computes, for inference only: prompts of any lengths first, then a token of
    each at a time.

    Weights that no mask holds back, in the precision that is asked for, are read where they lie, so
    an ordinary network costs no memory; others are copied once, and the network is not held. It
    stands for the network as it is: make a new one when weights or masks have moved.

    A streamed network (model/streamed.py) keeps its own products.
    """

    def __init__(
        self, network: TeleFLM, weights: Weights | None = None, *, many_rows: bool = False
    ) -> None:
        """
        Args:
            weights: what the products read; the precision in force is followed unless given:
                autocast's, else the weights' own.
            many_rows: lay weights in float32 on a CPU out for several rows at a time: a copy, with
                which 16 rows are written half as fast again, and one somewhat slower.

        Raises:
            ConfigError: int8 where there are no kernels for it.
        """
        kind = network.model.norm.weight.device.type
        dtype = network.model.norm.weight.dtype
        if weights is not None:
            dtype = _DTYPES[weights]
        elif torch.is_autocast_enabled(kind):
            dtype = torch.get_autocast_dtype(kind)
        made = partial(_linear, dtype=dtype, int8=weights == "int8", many_rows=many_rows)
        self.config = network.config
        self.device = network.model.norm.weight.device
        self._embedding, self._rope = network.model.embed_tokens, network.model.rope
        self._multipliers = network.input_multiplier, network.logit_multiplier
        blocks = cast("Iterable[Block]", network.model.layers)
        self._layers = [_Layer(block, made) for block in blocks]
        self._norm = _Norm(network.model.norm)
        self._head = made(network.lm_head)
        self._dtype = dtype

    def begin(self, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Cache]:
        """Logits (B, V) behind token ids of any lengths, none empty, and what to go on with."""
        cache = Cache(len(self._layers), [len(prompt) for prompt in prompts])
        logits, first = [], 0
        while first < len(prompts):
            sums = list(accumulate(cache.lengths[first:]))
            count = max(1, sum(total <= _TOKENS_AT_ONCE for total in sums))
            logits.append(self._read(prompts[first : first + count], cache, first))
            first += count
        return torch.cat(logits), cache

    def _read(self, prompts: Sequence[Sequence[int]], cache: Cache, first: int) -> Tensor:
        """Logits behind prompts that are rows `first` and on: one sequence to all but attention, so
        that nothing is padded and none of them sees another."""
        lengths = [len(prompt) for prompt in prompts]
        tables = self._rope.tables(slice(0, max(lengths)), self.device)
        cos, sin = (torch.cat([table[:length] for length in lengths]) for table in tables)

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
            rows = zip(*(each.split(lengths, dim=2) for each in (q, k, v)), strict=True)
            seen = []
            for row, (queries, keys, values) in enumerate(rows, first):
                cache.place(layer, row, keys, values)
                seen.append(causal_attention(queries, keys, values, window))
            return torch.cat(seen, dim=2)

        x = self._behind_layers([[t for prompt in prompts for t in prompt]], cos, sin, attend)
        # The last positions': all of a prompt would be its length × 80,000 numbers.
        ends = [total - 1 for total in accumulate(lengths)]
        return self._logits(x[0, ends])

    def step(self, tokens: Sequence[int], cache: Cache) -> Tensor:
        """Logits (B, V) behind one more token of each row."""
        positions = torch.tensor(cache.lengths, device=self.device)
        cache.advance()
        seen = cache.seen(self.device)
        # The same tables until the cache grows.
        tables = self._rope.tables(slice(0, cache.capacity), self.device)
        cos, sin = (table[positions][:, None, None] for table in tables)

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
            return causal_attention(q, *cache.append(layer, k, v), window, seen)

        x = self._behind_layers([[token] for token in tokens], cos, sin, attend)
        return self._logits(x[:, 0])

    def _behind_layers(
        self, tokens: list[list[int]], cos: Tensor, sin: Tensor, attend: Callable[..., Tensor]
    ) -> Tensor:
        """The residual stream (B, S, D) behind the layers."""
        cos, sin = cos.to(self._dtype), sin.to(self._dtype)
        x: Tensor = self._embedding(torch.tensor(tokens, device=self.device))
        x = x * self._multipliers[0]
        for number, layer in enumerate(self._layers):
            x = layer(x, cos, sin, partial(attend, number))
        return x

    def _logits(self, x: Tensor) -> Tensor:
        return self._head(self._norm(x)) * self._multipliers[1]


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

    def __init__(self, block: Block, made: Callable[[nn.Module], _Product]) -> None:
        attention, mlp = block.self_attn, block.mlp
        self._head_dim = attention.head_dim
        self._has_rope, self._window = attention.has_rope, attention.window
        self._before_attention = _Norm(block.input_layernorm)
        self._q, self._k, self._v, self._o = map(
            made, (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj)
        )
        self._q_norm, self._k_norm = (
            _Norm(norm) if isinstance(norm, RMSNorm) else norm
            for norm in (attention.q_norm, attention.k_norm)
        )
        self._before_mlp = _Norm(block.post_attention_layernorm)
        self._gate, self._up, self._down = map(made, (mlp.gate_proj, mlp.up_proj, mlp.down_proj))

    def __call__(self, x: Tensor, cos: Tensor, sin: Tensor, attend: _Attend) -> Tensor:
        shape = (*x.shape[:2], -1, self._head_dim)
        y = self._before_attention(x)
        q, k, v = (linear(y).view(shape) for linear in (self._q, self._k, self._v))
        q, k, v = (part.transpose(1, 2) for part in (self._q_norm(q), self._k_norm(k), v))
        if self._has_rope:
            q, k = apply_rope(q, cos, sin), apply_rope(k, cos, sin)
        y = attend(q, k, v, self._window)
        x = x + self._o(y.transpose(1, 2).reshape(*x.shape[:2], -1))
        y = self._before_mlp(x)
        return x + self._down(F.silu(self._gate(y)) * self._up(y))


def _linear(linear: nn.Module, dtype: torch.dtype, int8: bool, many_rows: bool) -> _Product:
    """The product of a Linear with its folded weight and bias; another module's own."""
    if not isinstance(linear, Linear):
        return linear
    bias = masked_bias(linear)
    weight = masked_weight(linear).detach().to(dtype)
    bias = None if bias is None else bias.detach().to(dtype)
    if int8:
        return Int8Linear(weight, bias)
    return partial(_multiplied, weight=packed(weight) if many_rows else weight, bias=bias)


def _multiplied(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return product(x, weight, bias)
