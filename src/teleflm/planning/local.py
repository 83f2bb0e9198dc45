"""This machine as a cluster, measured."""

import os
from typing import Literal

import torch

from teleflm.config.cluster import LOCAL, ClusterConfig, load_cluster
from teleflm.config.run import Precision
from teleflm.model.precision import fast_precision, peak_rate, product_rate

# Nobody measured these here: PCIe of the fourth generation, half of what it could do.
_SERVER_GB_S = 16.0
Dtype = Literal["auto"] | Precision


def cluster_of(spec: str, dtype: Dtype = "auto") -> ClusterConfig:
    """The cluster of that name or file, `local` among them, which is measured in `dtype`.

    Raises:
        ConfigError: see `load_cluster`.
    """
    return local_cluster(dtype) if spec == LOCAL else load_cluster(spec)


def local_cluster(dtype: Dtype = "auto") -> ClusterConfig:
    """Its GPUs, or else all its cores as one device, at the rate of matrix products that they were
    measured at, in `dtype` or in what they compute fast.

    It takes about a second.
    """
    device = _device()
    precision = fast_precision(device) if dtype == "auto" else dtype
    rate = product_rate(device, precision)
    if device.type == "cpu":
        return ClusterConfig(
            devices_per_server=1,
            device=f"{os.cpu_count()} cores",
            kind="cpu",
            memory_gb=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 3),
            dtype=precision,
            peak_tflops=rate / 1e12,
            matmul_efficiency=1.0,
        )
    peak = max(peak_rate(device, precision), rate)
    return ClusterConfig(
        devices_per_server=torch.cuda.device_count(),
        device=torch.cuda.get_device_name(device),
        memory_gb=round(torch.cuda.mem_get_info(device)[0] / 1e9, 3),
        dtype=precision,
        peak_tflops=peak / 1e12,
        matmul_efficiency=rate / peak,
        server_gb_s=_SERVER_GB_S,
    )


def _device() -> torch.device:
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def auto_on(spec: str | None) -> Precision:
    """What `training.dtype: auto` means on the cluster of that name or file, and on this machine
    where there is none."""
    return fast_precision(_device()) if spec in (None, LOCAL) else load_cluster(spec).dtype


def auto_of_kind(kind: Literal["cuda", "cpu"]) -> Precision:
    """The same where a job would compute: on GPUs bf16, whatever this machine has; on processors
    what this one does fast."""
    return "bf16" if kind == "cuda" else fast_precision(torch.device("cpu"))
