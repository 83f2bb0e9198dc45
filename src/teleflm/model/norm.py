"""RMS norm: by PyTorch's kernel where the device has one, in few passes on a CPU."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from teleflm.model.device import device_kind


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / rms(x) · weight over the last dim; under autocast in float32, as PyTorch has it."""
    kind, place = device_kind(x), x.device.type
    if place == "cpu" and torch.is_autocast_enabled(place):
        wide = torch.promote_types(x.dtype, torch.float32)
        x, weight = x.to(wide), weight.to(wide)
    if _few_passes_pay(kind) and x.dtype in (torch.float32, torch.float64):
        return _few_passes(x, weight, eps)
    if kind == place:
        return F.rms_norm(x, weight.shape, weight, eps)
    # A dry run on the CPU that stands for CUDA: there it is one kernel, which keeps its input, in
    # float32 under autocast, and not the steps between.
    return torch._fused_rms_norm(x, weight.shape, weight, eps)[0]


def masked_rms_norm(x: Tensor, weight: Tensor, eps: float, fraction: Tensor) -> Tensor:
    """The norm of x whose entries beyond `fraction` of the width are masked: its mean square is
    that of the others. In float32 at least."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    weight, least = weight * fraction.sqrt(), eps * fraction
    if _few_passes_pay(device_kind(x)):
        return _few_passes(wide, weight, least)
    return wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + least) * weight


def _few_passes_pay(kind: str) -> bool:
    # A compiler fuses the passes by itself, and of a function that brings its own gradients PyTorch
    # 2.11's makes wrong ones.
    return kind == "cpu" and not torch.compiler.is_compiling()


def _few_passes(x: Tensor, weight: Tensor, eps: float | Tensor) -> Tensor:
    if not torch.is_grad_enabled():
        return _normed(x, weight, eps)[0]
    normed: Tensor = _FewPasses.apply(x, weight, eps)
    return normed


def _normed(x: Tensor, weight: Tensor, eps: float | Tensor) -> tuple[Tensor, Tensor]:
    """The norm of x, and 1 / rms(x)."""
    scale = x.square().mean(-1, keepdim=True).add_(eps).rsqrt_()
    return (x * scale).mul_(weight), scale


class _FewPasses(torch.autograd.Function):
    """PyTorch has no kernel of it for a CPU (torch 2.15) and takes a dozen passes, forward and
    backward, keeping what is between; here it keeps its input and a number a row.

    With r = 1 / rms(x): y = x r w, dx = g w r − x r³ mean(g w x), dw = Σ g x r.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float | Tensor) -> Tensor:
        y, scale = _normed(x, weight, eps)
        ctx.save_for_backward(x, weight, scale)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, scale = ctx.saved_tensors
        weighted = grad_outputs[0] * weight
        mean = (weighted * x).mean(-1, keepdim=True)
        rows = tuple(range(x.dim() - 1))
        grad_weight = (grad_outputs[0] * x).mul_(scale)
        if rows:  # a sum over no dimension is one over all of them
            grad_weight = grad_weight.sum(rows)
        grad_x = weighted.mul_(scale).addcmul_(x, mean.mul_(scale**3), value=-1.0)
        return grad_x, grad_weight, None
