"""Rotary position embedding, rotate-half form (arXiv 2104.09864), as Llama computes it."""

import math
from typing import Any

import torch
from torch import Tensor

from teleflm.config.model import ModelConfig
from teleflm.config.rope import LinearRope, Llama3Rope, YarnRope


class Rope:
    """What turns queries and keys at each position.

    Frequencies and angles are formed in float32 on purpose, in every precision: the released models
    and the serving stacks do so, and at long positions a float64 table would be another function.
    """

    def __init__(self, model: ModelConfig) -> None:
        # A plain attribute, not a buffer: .to(dtype) must not round it.
        self._frequency = inverse_frequencies(model)
        scaling = model.rope_scaling
        self._factor = scaling.attention_factor if isinstance(scaling, YarnRope) else 1.0
        self._last: tuple[tuple[slice, torch.device], tuple[Tensor, Tensor]] | None = None

    def tables(self, positions: slice, device: torch.device) -> tuple[Tensor, Tensor]:
        """cos and sin of these positions, float32 (S, head_dim) on `device`.

        Those made last are kept, since training asks for the same again and again.
        """
        place = (positions, device)
        if self._last is None or self._last[0] != place:
            # Made while writing a sample, they are to serve in training too.
            with torch.inference_mode(False):
                # No `.to` of a network reaches a plain attribute: its input says where it went.
                self._frequency = self._frequency.to(device)
                self._last = place, self._made(positions)
        return self._last[1]

    def restarting(self, starts: Tensor) -> tuple[Tensor, Tensor]:
        """Those of positions in texts that begin at `starts` (B, S) of their rows, float32
        (B, 1, S, head_dim)."""
        length = starts.shape[1]
        cos, sin = self.tables(slice(0, length), starts.device)
        position = torch.arange(length, device=starts.device) - starts
        return cos[position][:, None], sin[position][:, None]

    def _made(self, positions: slice) -> tuple[Tensor, Tensor]:
        device = self._frequency.device
        position = torch.arange(positions.start, positions.stop, device=device).float()
        angle = torch.outer(position, self._frequency)
        angle = torch.cat((angle, angle), dim=-1)
        return angle.cos() * self._factor, angle.sin() * self._factor


def inverse_frequencies(model: ModelConfig) -> Tensor:
    """Radians a position by which each pair of dims turns, float32 (head_dim / 2,)."""
    exponent = torch.arange(0, model.head_dim, 2, dtype=torch.int64).float() / model.head_dim
    period = model.rope_theta**exponent
    scaling = model.rope_scaling
    if isinstance(scaling, LinearRope):
        return 1.0 / period / scaling.factor
    if isinstance(scaling, Llama3Rope):
        return _llama3(1.0 / period, scaling)
    if isinstance(scaling, YarnRope):
        return _yarn(period, model, scaling)
    return 1.0 / period


def _llama3(frequency: Tensor, scaling: Llama3Rope) -> Tensor:
    """How many times a pair turns within the original context says what becomes of it: nothing
    from `high_freq_factor` on, 1 / factor up to `low_freq_factor`, a mixture between."""
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    turns = scaling.original_max_position_embeddings / (2 * math.pi / frequency)
    kept = ((turns - low) / (high - low)).clamp(0.0, 1.0)
    return (1 - kept) * frequency / scaling.factor + kept * frequency


def _yarn(period: Tensor, model: ModelConfig, scaling: YarnRope) -> Tensor:
    """From the pair that turns `beta_fast` times within the original context to the one that turns
    `beta_slow` times, a line from the frequency as it is to it / factor."""
    dims, context = model.head_dim, scaling.original_max_position_embeddings

    def pair_of(turns: float) -> float:
        """The pair, of dims / 2 and between them, that turns so many times."""
        ratio = math.log(context / (turns * 2 * math.pi)) / math.log(model.rope_theta)
        return dims * ratio / 2

    first, last = pair_of(scaling.beta_fast), pair_of(scaling.beta_slow)
    if scaling.truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, dims - 1)
    if first == last:
        last += 0.001
    pairs = torch.arange(dims // 2, dtype=torch.float32)
    kept = 1 - ((pairs - first) / (last - first)).clamp(0.0, 1.0)
    return 1.0 / (scaling.factor * period) * (1 - kept) + 1.0 / period * kept


class _Rotation(torch.autograd.Function):
    """Backward turns the other way: nothing of x is kept, and both take three passes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _rotated(x, cos, sin)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        cos, sin = ctx.saved_tensors
        return _rotated(grad_outputs[0], cos, -sin), None, None


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x · cos + (−second half of x, first half) · sin, the minus in front of the sine's half."""
    return turned(x, cos, signed(sin))


def signed(sin: Tensor) -> Tensor:
    """The sines (…, d) with the minus of their first half, for `turned`."""
    half = sin.shape[-1] // 2
    return torch.cat((-sin[..., :half], sin[..., half:]), dim=-1)


def turned(x: Tensor, cos: Tensor, signed_sin: Tensor) -> Tensor:
    """x (…, d) rotated by tables in its precision, the sines `signed`; for inference."""
    # As x lies in memory: attention gives what lies as its queries do, and has to be copied else.
    return (x * cos).addcmul_(x.roll(x.shape[-1] // 2, dims=-1), signed_sin)


def apply_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate x (B, heads, S, d) by tables (S, d) or (B, 1, S, d), in x's precision."""
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    # As in model/norm.py: what is compiled finds its own way back.
    rotate = _rotated if torch.compiler.is_compiling() else _Rotation.apply
    rotated: Tensor = rotate(x, cos, sin)
    return rotated
