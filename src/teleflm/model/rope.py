"""Rotary position embedding, rotate-half form (arXiv 2104.09864), as Llama computes it."""

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


def apply_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate x (B, heads, S, d) by the tables (S, d), in x's precision."""
    first, second = x.chunk(2, dim=-1)
    rotated = torch.cat((-second, first), dim=-1)
    return x * cos.to(x.dtype) + rotated * sin.to(x.dtype)
