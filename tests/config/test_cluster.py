"""Clusters as they ship, and as a user gets them wrong."""

from pathlib import Path

import pytest

from teleflm.config.cluster import LOCAL, cluster_names, data_sheet_tflops, load_cluster
from teleflm.errors import ConfigError

GOOD = {
    "servers": 2,
    "devices_per_server": 8,
    "device": "H100",
    "memory_gb": 80,
    "matmul_efficiency": 0.5,
    "server_gb_s": 450,
    "network_gb_s": 50,
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "cluster.yaml"


def write(file: Path, **changes: object) -> str:
    fields = {key: value for key, value in {**GOOD, **changes}.items() if value is not None}
    file.write_text("".join(f"{key}: {value}\n" for key, value in fields.items()), encoding="utf-8")
    return str(file)


def test_the_shipped_ones() -> None:
    sizes = {name: load_cluster(name).devices for name in cluster_names() if name != LOCAL}
    assert sizes == {"a800-112x8": 896, "h100-1": 1, "h100-8": 8, "h100-64x8": 512}
    assert load_cluster("a800-112x8").peak == 312e12
    assert load_cluster("a800-112x8").memory == 80e9


def test_a_file_is_a_cluster(file: Path) -> None:
    assert load_cluster(write(file)).peak == 989e12
    assert load_cluster(write(file, device="mine", peak_tflops=7)).peak == 7e12


def test_a_known_device_may_be_said_to_do_less(file: Path) -> None:
    assert load_cluster(write(file, peak_tflops=756)).peak == 756e12
    assert data_sheet_tflops("NVIDIA H100 80GB HBM3") == 989
    assert data_sheet_tflops("NVIDIA L4") is None


def test_one_device_needs_no_links(file: Path) -> None:
    alone = {"servers": 1, "devices_per_server": 1, "server_gb_s": None, "network_gb_s": None}
    assert load_cluster(write(file, **alone)).devices == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"memory_gb": None}, "key 'memory_gb' is missing; add it"),
        ({"memory_gb": 0}, "memory_gb: Input should be greater than 0 (got 0)"),
        ({"matmul_efficiency": 1.2}, "matmul_efficiency: Input should be less than or equal to 1"),
        ({"servers": 1.5}, "servers: Input should be a valid integer"),
        ({"devices_per_server": 0}, "devices_per_server: "),
        ({"latency_us": -1}, "latency_us: "),
        ({"device": "B9000"}, "device 'B9000' is none whose peak is known"),
        ({"network_gb_s": None}, "key 'network_gb_s' is missing: servers is 2; add it"),
        ({"server_gb_s": None}, "key 'server_gb_s' is missing: devices_per_server is 8; add it"),
        ({"sever_gb_s": 3}, "did you mean 'server_gb_s'?"),
    ],
)
def test_what_is_missing_or_impossible_is_named(
    file: Path, changes: dict[str, object], words: str
) -> None:
    with pytest.raises(ConfigError) as error:
        load_cluster(write(file, **changes))
    assert words in str(error.value) and str(file) in str(error.value)


def test_a_name_that_is_none() -> None:
    with pytest.raises(ConfigError, match=r"'h100-9'.*did you mean 'h100-8'"):
        load_cluster("h100-9")
    with pytest.raises(ConfigError, match="clusters: a800-112x8, h100-1"):
        load_cluster("zzzzzz")
