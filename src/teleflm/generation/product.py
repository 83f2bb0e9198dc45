"""y = x Wᵀ + b of a few rows at the speed at which memory gives up W."""

import torch
import torch.nn.functional as F
from torch import Tensor

# oneDNN's call takes some 15 µs longer, in which memory gives up as many weights as this.
_LARGE = 2**18


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (…, in) times the transpose of `weight` (out, in), and a `bias` (out,) to it, in the
    weight's precision.

    For inference only: no gradient flows back. In float32 on a CPU `F.linear` asks MKL, and for
    one row MKL reads the weights with one thread (docs/log.md). oneDNN reads the same weights, as
    they lie, with all of them.
    """
    x = x.to(weight.dtype)
    if (
        weight.device.type == "cpu"
        and weight.dtype is torch.float32
        and weight.numel() >= _LARGE
        and _has_onednn()
    ):
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return y
    return F.linear(x, weight, bias)


def _has_onednn() -> bool:
    # The operator that torch.compile writes for a linear layer; no public function leads to it.
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
