"""CLUSTER: the machines that a job is planned on."""

import difflib
from importlib import resources
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from teleflm.config.base import Strict, build, read_yaml
from teleflm.config.run import Precision
from teleflm.errors import ConfigError

# Dense bf16 TFLOP/s by NVIDIA's data sheets; matched against the device's name.
_PEAK_TFLOPS = {"H200": 989.0, "H100": 989.0, "A800": 312.0, "A100": 312.0}
LOCAL = "local"
"""The cluster that is this machine; it is measured, not read."""


def data_sheet_tflops(device: str) -> float | None:
    """Dense bf16 TFLOP/s of the device of that name, None where it is not known."""
    return next((peak for key, peak in _PEAK_TFLOPS.items() if key in device), None)


class ClusterConfig(Strict):
    """Equal servers of equal devices.

    Attributes:
        servers, devices_per_server: how many.
        device: their name.
        kind: what PyTorch calls them; CPU kernels keep other bytes than CUDA's.
        memory_gb: that tensors can have on a device, in 1e9 bytes: what the libraries allocate
            beside tensors is to be taken off.
        dtype: what its peak is measured in, and what `training.dtype: auto` means there.
        peak_tflops: dense TFLOP/s in that; in bf16 the data sheet's unless given.
        matmul_efficiency: the share of the peak that a step's computation reaches, idle and
            communication times left out.
        head_efficiency: the same of what is outside the layers: the head, the loss and the
            embedding; that of the layers unless given.
        update_ns: of clipping and the optimizer's step, in nanoseconds for each parameter that a
            rank holds.
        server_gb_s: 1e9 bytes/s of a device to others of its server, in one direction.
        network_gb_s: the same to other servers: a device's share of its server's.
        latency_us: of a collective, in microseconds.
        price_per_hour: of a device, in any currency.
    """

    servers: int = Field(default=1, ge=1)
    devices_per_server: int = Field(ge=1)
    device: str = Field(min_length=1)
    kind: Literal["cuda", "cpu"] = "cuda"
    memory_gb: float = Field(gt=0)
    dtype: Precision = "bf16"
    peak_tflops: float | None = Field(default=None, gt=0)
    matmul_efficiency: float = Field(gt=0, le=1)
    head_efficiency: float | None = Field(default=None, gt=0, le=1)
    update_ns: float = Field(default=0.0, ge=0)
    server_gb_s: float | None = Field(default=None, gt=0)
    network_gb_s: float | None = Field(default=None, gt=0)
    latency_us: float = Field(default=20.0, ge=0)
    price_per_hour: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _nothing_is_missing(self) -> "ClusterConfig":
        if self.peak_tflops is None and data_sheet_tflops(self.device) is None:
            raise ValueError(
                f"device {self.device!r} is none whose peak is known ({', '.join(_PEAK_TFLOPS)}); "
                "give peak_tflops"
            )
        if self.peak_tflops is None and self.dtype != "bf16":
            raise ValueError(
                f"dtype {self.dtype}: the peaks that are known are those of bf16; give peak_tflops"
            )
        for key, count in {
            "server_gb_s": self.devices_per_server,
            "network_gb_s": self.servers,
        }.items():
            if count > 1 and getattr(self, key) is None:
                kind = "devices_per_server" if key == "server_gb_s" else "servers"
                raise ValueError(f"key {key!r} is missing: {kind} is {count}; add it")
        return self

    @property
    def devices(self) -> int:
        """All of them."""
        return self.servers * self.devices_per_server

    @property
    def peak(self) -> float:
        """FLOP/s of a device in `dtype`."""
        tflops = self.peak_tflops or data_sheet_tflops(self.device)
        assert tflops is not None
        return tflops * 1e12

    @property
    def memory(self) -> int:
        """Bytes of a device."""
        return round(self.memory_gb * 1e9)


def cluster_names() -> list[str]:
    """The names of the shipped clusters, and `local`."""
    folder = resources.files("teleflm.config") / "clusters"
    shipped = (f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name[-5:] == ".yaml")
    return sorted([*shipped, LOCAL])


def load_cluster(spec: str) -> ClusterConfig:
    """The cluster of that name or file.

    Args:
        spec: a shipped cluster's name, or the path of a YAML file.

    Raises:
        ConfigError: nothing of that name, or a value that is missing or impossible, by its key.
    """
    if spec in cluster_names():
        path = Path(str(resources.files("teleflm.config") / "clusters" / f"{spec}.yaml"))
        return build(ClusterConfig, read_yaml(path), spec)
    if Path(spec).is_file():
        return build(ClusterConfig, read_yaml(Path(spec)), spec)
    near = difflib.get_close_matches(spec, cluster_names(), n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"clusters: {', '.join(cluster_names())}"
    raise ConfigError(f"cluster {spec!r}: no shipped cluster or YAML file of that name; {hint}")
