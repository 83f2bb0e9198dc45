"""What a device computes in: the precisions that it has, its rate in each, and the fast one."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch

from teleflm.config.cluster import data_sheet_tflops
from teleflm.config.run import Precision
from teleflm.errors import ConfigError

TORCH_DTYPES: dict[Precision, torch.dtype] = {
    "bf16": torch.bfloat16,
    "fp32": torch.float32,
    "fp64": torch.float64,
}
_LACKING: dict[str, tuple[Precision, ...]] = {"mps": ("fp64",)}
# Sides of the square products by which a rate is measured, and seconds for each of them.
_SIDES = {"cpu": (256, 512, 1024), "mps": (2048,), "cuda": (4096, 8192)}
_SECONDS = 0.06
# Processors with bf16 instructions have 2 to 16 times their fp32 rate, others a hundredth of it, or
# with AVX-512 about the same.
_PAYS = 1.25


def fast_precision(device: torch.device) -> Precision:
    """bf16 where the device computes it clearly faster than fp32, else fp32.

    A GPU says so itself. Of a processor two products are measured, which takes some tenths of a
    second once a process: what it is named does not settle which kernels PyTorch has for it.
    """
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if device.type != "cpu":
        return "fp32"
    return "bf16" if slowness_of_bf16(device) < 1 / _PAYS else "fp32"


def slowness_of_bf16(device: torch.device) -> float:
    """How many times as long as an fp32 product one in bf16 takes."""
    return product_rate(device, "fp32") / product_rate(device, "bf16")


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """The context to compute in; it does nothing unless that is bf16."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def check_precision(precision: Precision, device: torch.device) -> None:
    """Raises ConfigError where the device has no such numbers."""
    if precision in _LACKING.get(device.type, ()):
        raise ConfigError(
            f"training.dtype {precision}: the device {device.type!r} has no numbers of that "
            "precision; give training.dtype=fp32, or for a run that has begun go on with it on a "
            "processor or an NVIDIA GPU"
        )


def peak_rate(device: torch.device, precision: Precision) -> float:
    """FLOP/s that the device could do at most: of a known GPU in bf16 the data sheet's, else what
    matrix products reach."""
    if device.type == "cuda" and precision == "bf16":
        tflops = data_sheet_tflops(torch.cuda.get_device_name(device))
        if tflops is not None:
            return tflops * 1e12
    return product_rate(device, precision)


@cache
def product_rate(device: torch.device, precision: Precision) -> float:
    """FLOP/s of matrix products, the best of some sizes; measured once a process, in half a second
    at most. Of a processor one thread is measured, and counted for all that PyTorch uses."""
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    rate = 0.0
    with _one_thread():
        for side in _SIDES[device.type]:
            flops = 2 * side**3
            # Where a smaller product took long, a larger one would take minutes, no faster.
            if rate and flops / rate > _SECONDS:
                break
            rate = max(rate, flops / _product_seconds(device, precision, side))
    return rate * threads


@contextmanager
def _one_thread() -> Iterator[None]:
    # On a busy machine each of several waits for one that is not running, a thousand times as long
    # as a small product takes: bf16 would be faster or slower than fp32 by chance.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _product_seconds(device: torch.device, precision: Precision, side: int) -> float:
    """The shortest of some products, but for the first, which chooses its kernel."""
    a = torch.ones(side, side, dtype=TORCH_DTYPES[precision], device=device)
    a @ a
    wait_for(device)
    seconds: list[float] = []
    end = time.perf_counter() + _SECONDS
    # Three at least, as other work may take the processor away in the middle of one.
    while len(seconds) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        a @ a
        wait_for(device)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def wait_for(device: torch.device) -> None:
    """Until the device has done what it was told; a processor has."""
    if device.type != "cpu":
        torch.get_device_module(device).synchronize()
