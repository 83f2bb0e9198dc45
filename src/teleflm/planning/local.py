"""This machine as a cluster, measured."""

import os
import time

import torch

from teleflm.config.cluster import LOCAL, ClusterConfig, load_cluster
from teleflm.training.peak import bf16_peak

# Nobody measured these here: PCIe of the fourth generation, half of what it could do.
_SERVER_GB_S = 16.0
_SIZE, _REPEATS = 8192, 5


def cluster_of(spec: str) -> ClusterConfig:
    """The cluster of that name or file, `local` among them.

    Raises:
        ConfigError: see `load_cluster`.
    """
    return local_cluster() if spec == LOCAL else load_cluster(spec)


def local_cluster() -> ClusterConfig:
    """Its GPUs, or else all its cores as one device, at the bf16 rate that they were measured at.

    It takes about a second.
    """
    if torch.cuda.is_available():
        return _gpus()
    rate = bf16_peak(torch.device("cpu"))
    assert rate is not None
    return ClusterConfig(
        devices_per_server=1,
        device=f"{os.cpu_count()} cores",
        kind="cpu",
        memory_gb=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 3),
        peak_tflops=rate / 1e12,
        matmul_efficiency=1.0,
    )


def _gpus() -> ClusterConfig:
    device = torch.device("cuda", 0)
    rate = _matmul_rate(device)
    peak = max(bf16_peak(device) or rate, rate)
    return ClusterConfig(
        devices_per_server=torch.cuda.device_count(),
        device=torch.cuda.get_device_name(device),
        memory_gb=round(torch.cuda.mem_get_info(device)[0] / 1e9, 3),
        peak_tflops=peak / 1e12,
        matmul_efficiency=rate / peak,
        server_gb_s=_SERVER_GB_S,
    )


def _matmul_rate(device: torch.device) -> float:
    a = torch.randn(_SIZE, _SIZE, device=device, dtype=torch.bfloat16)
    best = float("inf")
    for _ in range(_REPEATS):
        torch.cuda.synchronize(device)
        start = time.perf_counter()
        a @ a
        torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - start)
    return 2 * _SIZE**3 / best
