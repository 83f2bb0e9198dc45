"""RMS norm, by PyTorch's kernels."""

import torch
import torch.nn.functional as F
from torch import Tensor

from teleflm.model.device import device_kind


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / rms(x) · weight over the last dim."""
    if device_kind(x) == x.device.type:
        return F.rms_norm(x, weight.shape, weight, eps)
    # A dry run on the CPU that stands for CUDA: there it is one kernel, which keeps its input, in
    # float32 under autocast, and not the steps between.
    if torch.is_autocast_enabled(x.device.type):
        x, weight = x.float(), weight.float()
    return torch._fused_rms_norm(x, weight.shape, weight, eps)[0]
