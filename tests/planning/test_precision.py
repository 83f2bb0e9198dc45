"""Plans and dry runs compute in what the cluster does fast, whatever this machine does."""

from pathlib import Path

import pytest
import yaml

from teleflm.config.base import build
from teleflm.config.cluster import ClusterConfig, load_cluster
from teleflm.errors import ConfigError
from teleflm.planning import local
from teleflm.planning.local import auto_of_kind, auto_on, cluster_of, local_cluster
from teleflm.planning.plan import plan
from teleflm.planning.run import planned_run, run_of_model
from teleflm.planning.search import search

H100 = load_cluster("h100-8")
SLOW = H100.model_copy(update={"dtype": "fp32", "peak_tflops": 67.0})


@pytest.fixture(autouse=True)
def laptop(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without bf16."""
    monkeypatch.setattr(local, "fast_precision", lambda device: "fp32")
    monkeypatch.setattr(
        local, "product_rate", lambda device, precision: {"bf16": 1e9, "fp32": 1e11}[precision]
    )


@pytest.fixture
def run_yaml(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    fields = {
        "run_dir": "run",
        "model": {"preset": "nano-52b", "vocab_size": 512},
        "data": {"path": "store", "sequence_length": 64},
        "training": {"steps": 2, "global_batch": 8},
    }
    path.write_text(yaml.safe_dump(fields), encoding="utf-8")
    return path


def test_auto_is_the_clusters(run_yaml: Path) -> None:
    config = planned_run(run_yaml)
    assert config.training.dtype == "auto"
    fast, slow = plan(config, H100), plan(config, SLOW)
    assert (fast.config.training.dtype, slow.config.training.dtype) == ("bf16", "fp32")
    best = search(config, H100)[0].plan
    assert best is not None and best.config.parallel.gather_dtype == "bf16"
    best = search(config, SLOW)[0].plan
    assert best is not None and best.config.parallel.gather_dtype is None
    assert best.config.training.dtype == "fp32"


def test_this_machine_is_what_it_measures() -> None:
    assert (auto_on("local"), auto_on(None), auto_on("h100-8")) == ("fp32", "fp32", "bf16")
    assert (auto_of_kind("cuda"), auto_of_kind("cpu")) == ("bf16", "fp32")
    assert (local_cluster().dtype, local_cluster().peak) == ("fp32", pytest.approx(1e11))
    # A run in bf16 is planned at what that reaches here.
    assert cluster_of("local", "bf16").peak == pytest.approx(1e9)


def test_a_model_by_the_recipe_gathers_as_it_computes() -> None:
    for auto, gathered in (("bf16", "bf16"), ("fp32", None)):
        config = run_of_model("nano-52b", auto=auto)  # type: ignore[arg-type]
        assert (config.training.dtype, config.parallel.gather_dtype) == (auto, gathered)


def test_a_peak_in_another_precision_is_to_be_given() -> None:
    fields = {"devices_per_server": 1, "device": "H100", "memory_gb": 80, "matmul_efficiency": 0.5}
    assert build(ClusterConfig, fields, "c").peak == 989e12
    with pytest.raises(ConfigError, match="dtype fp32: the peaks that are known are those of bf16"):
        build(ClusterConfig, {**fields, "dtype": "fp32"}, "c")
