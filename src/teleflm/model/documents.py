"""Attention within texts that lie behind one another in a row.

A text sees itself alone, so the work is that of each by itself: less than that of the row. On a CPU
the texts go one by one through PyTorch's kernel, on a GPU in half precision all at once through its
kernel for sequences of any lengths. Elsewhere a boolean mask (B, 1, S, S) says who sees whom.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn

from teleflm.model.device import device_kind

aten = torch.ops.aten
_Part = tuple[slice, slice, slice]


@torch.library.custom_op("teleflm::text_bounds", mutates_args=())
def text_bounds(starts: Tensor) -> Tensor:
    """Where texts begin in rows laid end to end, and where the last one ends.

    Args:
        starts: the place in its row at which the text of each token begins, (B, S).

    Returns:
        int32 (texts + 1,). A dry run, which has no values, takes each row for one text.
    """
    place = torch.arange(starts.shape[1], device=starts.device)
    begins = (starts == place).flatten().nonzero().flatten()
    return F.pad(begins, (0, 1), value=starts.numel()).to(torch.int32)


@text_bounds.register_fake
def _(starts: Tensor) -> Tensor:
    return starts.new_empty(len(starts) + 1, dtype=torch.int32)


def document_attention(
    q: Tensor, k: Tensor, v: Tensor, bounds: Tensor, window: int | None
) -> Tensor:
    """Causal attention of q (B, heads, S, d) on k and v (B, groups, S, d) within texts.

    Args:
        bounds: where they begin, see `text_bounds`.
        window: how many positions of its text one sees, its own the last of them; all unless given.
    """
    if device_kind(q) == "cpu":
        attended: Tensor = _one_by_one(q, k, v, bounds, window)[0]
        return attended
    if q.dtype is torch.bfloat16 and q.shape[-1] % 8 == 0 and q.shape[-1] <= 256:
        return _at_once(q, k, v, bounds, window)
    mask = _seen(bounds, len(q), q.shape[2], window)
    return F.scaled_dot_product_attention(q, k, v, mask, enable_gqa=k.shape[1] < q.shape[1])


def within(window: int, length: int, device: torch.device) -> Tensor:
    """Boolean (S, S): whether a position sees another, itself or one of the window − 1 before."""
    position = torch.arange(length, device=device)
    # No (S, S) of whole numbers on the way, which takes eight times as much.
    is_seen = position[:, None] >= position
    return is_seen.logical_and_(position[:, None] < position + window)


def _seen(bounds: Tensor, rows: int, length: int, window: int | None) -> Tensor:
    """Boolean (B, 1, S, S): whether a position sees another."""
    places = torch.arange(rows * length, device=bounds.device, dtype=bounds.dtype)
    text = torch.searchsorted(bounds, places, right=True).view(rows, 1, length)
    return (text[..., :, None] == text[..., None, :]) & within(
        window or length, length, bounds.device
    )


def _at_once(q: Tensor, k: Tensor, v: Tensor, bounds: Tensor, window: int | None) -> Tensor:
    batch, heads, length, width = q.shape

    def laid_out(x: Tensor) -> Tensor:
        # Every head has keys of its own: PyTorch 2.11 does not know of groups here.
        flat = x.transpose(1, 2).reshape(batch * length, -1, width)
        return flat.repeat_interleave(heads // flat.shape[1], dim=1)

    # It counts those to the left of a position, and not the position itself.
    seen = (-1 if window is None else window - 1, 0)
    keys, values = laid_out(k), laid_out(v)
    flat = varlen_attn(laid_out(q), keys, values, bounds, bounds, length, length, window_size=seen)
    assert isinstance(flat, Tensor)
    return flat.view(batch, length, heads, width).transpose(1, 2)


def _texts(bounds: Tensor, length: int) -> Iterator[_Part]:
    """Each text's part of tensors (B, heads, S, …)."""
    places = bounds.tolist()
    for begin, end in pairwise(places):
        row, first = divmod(begin, length)
        yield slice(row, row + 1), slice(None), slice(first, first + end - begin)


def _sight(like: Tensor, window: int | None) -> tuple[bool, Tensor | None]:
    """Whether the kernel masks what lies ahead by itself, else its mask, of a text's queries."""
    length = like.shape[2]
    if window is None or length <= window:
        return True, None
    unseen = ~within(window, length, like.device)
    return False, like.new_zeros(length, length).masked_fill_(unseen, -torch.inf)


# An operator, as a compiler would otherwise make code for the lengths of every batch.
@torch.library.custom_op("teleflm::document_attention", mutates_args=())
def _one_by_one(
    q: Tensor, k: Tensor, v: Tensor, bounds: Tensor, window: int | None
) -> tuple[Tensor, Tensor]:
    """What is attended to, and the log-sum-exp of scores (B, heads, S), which backward wants."""
    attended, total = torch.empty_like(q), q.new_empty(q.shape[:3])
    for part in _texts(bounds, q.shape[2]):
        is_causal, mask = _sight(q[part], window)
        attended[part], total[part] = aten._scaled_dot_product_flash_attention_for_cpu(
            q[part], k[part], v[part], 0.0, is_causal, attn_mask=mask
        )
    return attended, total


@torch.library.custom_op("teleflm::document_attention_backward", mutates_args=())
def _one_by_one_backward(
    gradient: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attended: Tensor,
    total: Tensor,
    bounds: Tensor,
    window: int | None,
) -> tuple[Tensor, Tensor, Tensor]:
    found = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    for part in _texts(bounds, q.shape[2]):
        is_causal, mask = _sight(q[part], window)
        gradients = aten._scaled_dot_product_flash_attention_for_cpu_backward(
            gradient[part],
            q[part],
            k[part],
            v[part],
            attended[part],
            total[part],
            0.0,
            is_causal,
            attn_mask=mask,
        )
        for whole, each in zip(found, gradients, strict=True):
            whole[part] = each
    return found


@_one_by_one.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, bounds: Tensor, window: int | None) -> tuple[Tensor, Tensor]:
    return torch.empty_like(q), q.new_empty(q.shape[:3])


@_one_by_one_backward.register_fake
def _(
    gradient: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attended: Tensor,
    total: Tensor,
    bounds: Tensor,
    window: int | None,
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, bounds, ctx.window = inputs
    ctx.save_for_backward(q, k, v, *output, bounds)


def _gradients(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    gradients = _one_by_one_backward(gradient, *ctx.saved_tensors, ctx.window)
    return *gradients, None, None


_one_by_one.register_autograd(_gradients, setup_context=_keep)

FORWARD = torch.ops.teleflm.document_attention, torch.ops.torch_attn._varlen_attn
BACKWARD = (
    torch.ops.teleflm.document_attention_backward,
    torch.ops.torch_attn._varlen_attn_backward,
)
"""The operators of both ways: the texts one by one, (B, heads, S, d) each, and all at once."""
