"""teleflm sweep on the command line."""

import builtins
import json
from pathlib import Path
from typing import Any

import pytest

from teleflm.data.store import TokenStore
from tests.conftest import Command
from tests.tuning.sweeping import sweep_fields, write_sweep


def test_a_sweep_and_its_report(store: TokenStore, tmp_path: Path, teleflm: Command) -> None:
    path = write_sweep(tmp_path / "sweep.yaml", sweep_fields(store.path, tmp_path / "s"))
    code, out, err = teleflm("sweep", path, "trials=2", "run.training.steps=4")
    assert code == 0, err
    assert max(map(len, out.splitlines()[:-1])) <= 80
    assert "2 trials: 2 complete" in out
    assert "sweep: 8 of 8 steps" in err
    code, out, err = teleflm("sweep", "report", tmp_path / "s", "--to", "nano-1t", "--json")
    found = json.loads(out)
    assert (code, err) == (0, "")
    trial = found["trials"][0]
    assert {"number", "state", "values", "loss", "slope", "roughness", "grad_norm_trend"} <= {
        *trial
    }
    assert (
        trial["values"].keys()
        == found["best"].keys()
        == sweep_fields(store.path, path)["space"].keys()
    )
    assert found["transferred"]["optimizer.betas"] == found["best"]["optimizer.betas"]
    code, out, _ = teleflm("sweep", "report", tmp_path / "s", "--to", "nano-1t")
    assert code == 0
    assert "preset: nano-1t" in out
    assert out.splitlines()[-1] == str(tmp_path / "s" / "report.html")
    assert (tmp_path / "s" / "report.html").is_file()
    # The word may be written, and what is done is not done again.
    code, out, err = teleflm("sweep", "run", path, "trials=2", "run.training.steps=4")
    assert (code, err) == (0, "")


def test_bad_input_is_one_line(store: TokenStore, tmp_path: Path, teleflm: Command) -> None:
    fields = sweep_fields(store.path, tmp_path / "s")
    path = write_sweep(tmp_path / "sweep.yaml", fields)
    cases: list[tuple[tuple[Any, ...], str]] = [
        ((tmp_path / "none.yaml",), "none.yaml: no such file"),
        ((path, "space={optimizer.eps: {low: 2, high: 1}}"), "low 2 is above high 1; swap them"),
        ((path, "space={optimizer.ep: {low: 1, high: 2}}"), "did you mean 'optimizer.eps'?"),
        ((path, "sampler=tpee"), "'tpe', 'random' or 'grid'"),
        (("report", tmp_path), "no config.yaml in there"),
        (("report", tmp_path / "none"), "no config.yaml in there"),
        ((), "Usage"),
    ]
    for arguments, message in cases:
        code, out, err = teleflm("sweep", *arguments)
        assert code == 2, arguments
        assert message in err + out
        assert "Traceback" not in err
    assert not (tmp_path / "s").exists()


def test_without_optuna_the_extra_is_named(
    store: TokenStore, tmp_path: Path, teleflm: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = builtins.__import__

    def without(name: str, *args: Any, **more: Any) -> Any:
        if name.startswith("teleflm.tuning"):
            raise ModuleNotFoundError("No module named 'optuna'", name="optuna.trial")
        return load(name, *args, **more)

    path = write_sweep(tmp_path / "sweep.yaml", sweep_fields(store.path, tmp_path / "s"))
    monkeypatch.setattr(builtins, "__import__", without)
    code, _, err = teleflm("sweep", path)
    assert code == 2
    assert "optuna is not installed; install it with: pip install 'teleflm[sweep]'" in err
