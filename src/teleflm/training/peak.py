"""What the device could do at most, for the share that a run reaches."""

import time

import torch

from teleflm.config.cluster import data_sheet_tflops

_SIZE, _REPEATS = 1024, 8


def bf16_peak(device: torch.device) -> float | None:
    """bf16 FLOP/s: a known GPU's data-sheet peak, a CPU's measured matrix-product rate, else None.

    The measurement takes about 0.1 s.
    """
    if device.type == "cuda":
        tflops = data_sheet_tflops(torch.cuda.get_device_name(device))
        return None if tflops is None else tflops * 1e12
    if device.type != "cpu":
        return None
    a = torch.randn(_SIZE, _SIZE).bfloat16()
    best = float("inf")
    for _ in range(_REPEATS):
        start = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - start)
    return 2 * _SIZE**3 / best
