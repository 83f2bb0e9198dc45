"""torch.compile of each block: the same losses, and no step of a ramp recompiles."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from teleflm.data.store import TokenStore
from teleflm.errors import ConfigError
from teleflm.training.loop import default_hooks, train
from teleflm.training.prepare import compiles
from tests.tiny import At, run_config, trajectory

SECTIONS: dict[str, Any] = {
    "growth": {"to": {"hidden_size": 40, "num_hidden_layers": 3}, "ramp": 99},
    "evaluation": {"every": 100},
}


@pytest.mark.slow
def test_compiled_blocks_ramp_without_recompiling(store: TokenStore, tmp_path: Path) -> None:
    torch.compiler.reset()
    counters.clear()
    graphs: list[int] = []

    def count() -> None:
        graphs.append(counters["stats"]["unique_graphs"])

    def run(name: str, compiled: bool) -> Path:
        training = {"compile": compiled, "dtype": "fp32"}
        config = run_config(store.path, tmp_path / name, training=training, **SECTIONS)
        return train(config, [*default_hooks(), At(1, count), At(5, count)])

    compiled = trajectory(run("compiled", True))
    first, later = graphs
    assert first > 0
    assert later == first
    plain = trajectory(run("plain", False))
    assert [row["loss"] for row in compiled] == pytest.approx([row["loss"] for row in plain], 1e-5)


@pytest.mark.parametrize(
    ("kind", "sections", "expected"),
    [
        # On a CPU it gains little, and needs a compiler.
        ("cpu", {}, False),
        ("cpu", {"training": {"compile": True}}, True),
        ("cuda", {}, True),
        ("cuda", {"training": {"compile": False}}, False),
        ("cuda", {"parallel": {"schedule": "zero_bubble"}}, False),
        ("mps", {}, False),
    ],
)
def test_auto_compiles_where_that_is_known_to_pay(
    kind: str, sections: dict[str, Any], expected: bool, store: TokenStore, tmp_path: Path
) -> None:
    config = run_config(store.path, tmp_path / "run", **sections)
    assert compiles(config, torch.device(kind)) is expected


def test_without_a_compiler_it_is_refused(
    store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ConfigError, match="there is no 'no-such-compiler'; install one, or name"):
        train(run_config(store.path, tmp_path / "run", training={"compile": True}))


def test_a_run_of_auto_on_a_cpu_compiles_nothing(store: TokenStore, tmp_path: Path) -> None:
    torch.compiler.reset()
    counters.clear()
    train(run_config(store.path, tmp_path / "run"), default_hooks())
    assert not counters["stats"]["unique_graphs"]
