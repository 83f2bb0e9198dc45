"""Weights in 8 bits on a CPU, by FBGEMM's kernels."""

import warnings
from typing import Any

import torch
from torch import Tensor

from teleflm.errors import ConfigError

_ENGINE = "fbgemm"
_LARGEST_WEIGHT = 127
# 7 bits and a zero at 64. With 8 the pairs of products that a processor without VNNI adds up in 16
# bits would overflow.
_LARGEST, _ZERO = 63.0, 64
# In place of 0, for rows of zeros.
_TINY = torch.finfo(torch.float32).tiny


class Int8Linear:
    """y = x Wᵀ + b in float32 where W (out, in) is rounded to 8 bits, a scale for each row of it.

    The kernel multiplies whole numbers only, so x is given to it in two halves of 7 bits, the
    second of what the first leaves: for one row they cost no more than one would, since the time
    is that of reading W. So x is rounded to about a 16,000th of its row's largest entry, against
    which the weights' 254th is all that counts, and no row changes another one's result.

    Raises ConfigError where PyTorch has no such kernel.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        _check_kernels(weight.device)
        scales = weight.abs().amax(1).double() / _LARGEST_WEIGHT
        scales = scales.clamp_min(_TINY)
        whole = (weight / scales[:, None]).round().to(torch.int8)
        self._packed, self._bias = _packed(whole, scales), bias

    def __call__(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1]).float()
        # Two operations, in a third of the time of vector_norm's one.
        unit = rows.abs().amax(1, keepdim=True).div_(_LARGEST).clamp_min_(_TINY)
        scaled = rows / unit
        # The operator rounds the first half by itself, to even as `round` does.
        halves = torch.cat((scaled, scaled.sub(scaled.round()).mul_(2 * _LARGEST)))
        high, low = _operator()(halves, 1.0, _ZERO, self._packed).chunk(2)
        y = high.add(low, alpha=0.5 / _LARGEST).mul_(unit)
        y = y if self._bias is None else y.add_(self._bias)
        return y.view(*x.shape[:-1], -1)


def _operator() -> Any:
    return torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32


def _check_kernels(device: torch.device) -> None:
    if device.type != "cpu":
        raise ConfigError("int8 weights are for a CPU; on a GPU take bf16")
    if _ENGINE not in torch.backends.quantized.supported_engines or not hasattr(
        torch.ops.quantized, "linear_with_input_q_dq_qweight_dq_output_fp32"
    ):
        raise ConfigError(
            f"int8 weights need the kernels of FBGEMM, which PyTorch {torch.__version__} does not "
            "have on this machine (they are for x86 processors); take bf16 or fp32"
        )


def _packed(whole: Tensor, scales: Tensor) -> Any:
    """The kernel's own form of int8 (out, in) with a scale for each row."""
    engine = torch.backends.quantized.engine
    try:
        torch.backends.quantized.engine = _ENGINE
        with warnings.catch_warnings():
            # That tensors of this kind will be gone one day; then `_check_kernels` says so.
            warnings.simplefilter("ignore")
            zeros = torch.zeros(len(scales), dtype=torch.long)
            tensor = torch._make_per_channel_quantized_tensor(whole, scales, zeros, 0)
            return torch.ops.quantized.linear_prepack(tensor, None)
    finally:
        torch.backends.quantized.engine = engine
