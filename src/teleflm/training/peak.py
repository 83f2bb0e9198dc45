"""What the device could do at most, for the share that a run reaches."""

import time

import torch

# Dense bf16 FLOP/s by NVIDIA's data sheets; matched against the device's name.
_GPU_PEAKS = {"H200": 989e12, "H100": 989e12, "A800": 312e12, "A100": 312e12}
_SIZE, _REPEATS = 1024, 8


def bf16_peak(device: torch.device) -> float | None:
    """bf16 FLOP/s: a known GPU's data-sheet peak, a CPU's measured matrix-product rate, else None.

    The measurement takes about 0.1 s.
    """
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        return next((peak for key, peak in _GPU_PEAKS.items() if key in name), None)
    if device.type != "cpu":
        return None
    a = torch.randn(_SIZE, _SIZE).bfloat16()
    best = float("inf")
    for _ in range(_REPEATS):
        start = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - start)
    return 2 * _SIZE**3 / best
