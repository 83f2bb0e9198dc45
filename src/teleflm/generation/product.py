"""y = x Wᵀ + b of a few rows at the speed at which memory gives up W."""

import torch
import torch.nn.functional as F
from torch import Tensor

# oneDNN's call takes some 15 µs longer, in which memory gives up as many weights as this.
_LARGE = 2**18
# What a layout for many rows is for; it serves fewer and more of them too.
_ROWS = 16


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (…, in) times the transpose of `weight` (out, in), `packed` or not, and a `bias` (out,) to
    it, in the weight's precision.

    For inference only: no gradient flows back. In float32 on a CPU `F.linear` asks MKL, and for
    one row MKL reads the weights with one thread (docs/log.md). oneDNN reads the same weights, as
    they lie, with all of them.
    """
    x = x.to(weight.dtype)
    if weight.is_mkldnn or _suits_onednn(weight):
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return y
    return F.linear(x, weight, bias)


def packed(weight: Tensor) -> Tensor:
    """A copy of `weight` (out, in) as oneDNN wants it for several rows, or itself where another
    layout would not help."""
    if not _suits_onednn(weight):
        return weight
    reordered: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS)
    return reordered


def _suits_onednn(weight: Tensor) -> bool:
    return (
        weight.device.type == "cpu"
        and weight.dtype is torch.float32
        and weight.numel() >= _LARGE
        and _has_onednn()
    )


def _has_onednn() -> bool:
    # The operators that torch.compile writes for a linear layer; no public function leads to them.
    return torch.backends.mkldnn.is_available() and all(
        hasattr(torch.ops.mkldnn, name) for name in ("_linear_pointwise", "_reorder_linear_weight")
    )
