"""Scaled dot-product attention, by PyTorch's kernels."""

import torch
import torch.nn.functional as F
from torch import Tensor

from teleflm.model.device import device_kind
from teleflm.model.documents import document_attention, within


def causal_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    window: int | None = None,
    seen: Tensor | None = None,
    bounds: Tensor | None = None,
) -> Tensor:
    """Causal attention (B, heads, S, d) of q on k and v (B, groups, T, d), T ≥ S.

    A single new position sees everything cached; several start from an empty cache, or it is a
    ValueError. With a `window` a position sees that many, its own the last of them. A single one
    may be told which it sees, boolean (B, 1, 1, T). Where rows hold several texts, `bounds` says
    where they begin (see `text_bounds`), and each sees itself alone.
    """
    if 1 < q.shape[2] < k.shape[2]:
        raise ValueError(f"{q.shape[2]} new positions behind cached ones; give them one by one")
    if device_kind(q) == "cpu" and q.dtype is torch.bfloat16:
        # At the nano shapes' head_dim 16 PyTorch's CPU kernel takes 3 times as long in bf16 as in
        # fp32, forward and backward (torch 2.13; benchmarks/attention.py), and rounds more. At 64
        # it takes 0.7 times as long, which nobody trains on a CPU.
        with torch.autocast("cpu", enabled=False):
            return _attention(q.float(), k.float(), v.float(), window, seen, bounds)
    return _attention(q, k, v, window, seen, bounds)


def _attention(
    q: Tensor, k: Tensor, v: Tensor, window: int | None, mask: Tensor | None, bounds: Tensor | None
) -> Tensor:
    if bounds is not None:
        return document_attention(q, k, v, bounds, window)
    is_grouped, is_causal = k.shape[1] < q.shape[1], q.shape[2] > 1
    if window is not None and window < k.shape[2]:
        if is_causal:
            mask, is_causal = within(window, q.shape[2], q.device), False
        else:
            k, v = k[:, :, -window:], v[:, :, -window:]
            mask = None if mask is None else mask[..., -window:]
    return F.scaled_dot_product_attention(q, k, v, mask, is_causal=is_causal, enable_gqa=is_grouped)
