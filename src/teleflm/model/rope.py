"""Rotary position embedding, rotate-half form (arXiv 2104.09864), as Llama computes it."""

from typing import Any

import torch
from torch import Tensor

from teleflm.config.model import ModelConfig


def rope_tables(model: ModelConfig) -> tuple[Tensor, Tensor]:
    """cos and sin (max_position_embeddings, head_dim).

    Frequencies are formed in float32 on purpose, in every precision: the released models and the
    serving stacks do so, and at long positions a float64 table would be another function.
    """
    exponent = torch.arange(0, model.head_dim, 2, dtype=torch.int64).float() / model.head_dim
    inverse_frequency = 1.0 / (model.rope_theta**exponent)
    position = torch.arange(model.max_position_embeddings, dtype=torch.int64).float()
    angle = torch.outer(position, inverse_frequency)
    angle = torch.cat((angle, angle), dim=-1)
    return angle.cos(), angle.sin()


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
    half = x.shape[-1] // 2
    signed = torch.cat((-sin[..., :half], sin[..., half:]), dim=-1)
    # As x lies in memory: attention gives what lies as its queries do, and has to be copied else.
    return (x * cos).addcmul_(x.roll(half, dims=-1), signed)


def apply_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate x (B, heads, S, d) by the tables (S, d), in x's precision."""
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    # As in model/norm.py: what is compiled finds its own way back.
    rotate = _rotated if torch.compiler.is_compiling() else _Rotation.apply
    rotated: Tensor = rotate(x, cos, sin)
    return rotated
