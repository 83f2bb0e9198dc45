"""Attention within a window."""

import pytest
import torch
from torch import Tensor

from teleflm.model.attention import causal_attention


def by_hand(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """Each position by itself: softmax over what it sees."""
    k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], dim=1) for t in (k, v))
    outputs = []
    for at in range(q.shape[2]):
        seen = slice(max(0, at - window + 1), at + 1)
        scores = q[:, :, at : at + 1] @ k[:, :, seen].transpose(-1, -2) / q.shape[-1] ** 0.5
        outputs.append(scores.softmax(-1) @ v[:, :, seen])
    return torch.cat(outputs, dim=2)


@pytest.mark.parametrize("window", [1, 5, 11, 12, 40])
def test_a_position_sees_so_many_its_own_the_last(window: int) -> None:
    torch.manual_seed(0)
    q = torch.randn(2, 4, 12, 8, dtype=torch.float64, requires_grad=True)
    k, v = (torch.randn(2, 2, 12, 8, dtype=torch.float64, requires_grad=True) for _ in range(2))
    expected = by_hand(q, k, v, window)
    found = causal_attention(q, k, v, window)
    assert (found - expected).abs().max() < 1e-14
    # The last one alone, behind a cache.
    assert (causal_attention(q[:, :, -1:], k, v, window) - expected[:, :, -1:]).abs().max() < 1e-14
    weight = torch.randn_like(expected)
    gradients = (torch.autograd.grad((y * weight).sum(), (q, k, v)) for y in (found, expected))
    for ours, theirs in zip(*gradients, strict=True):
        assert (ours - theirs).abs().max() < 1e-13
