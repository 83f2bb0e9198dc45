"""A sweep of a tiny model whose trials take a few tenths of a second."""

from pathlib import Path
from typing import Any

import yaml

from tests.tiny import run_fields

SPACE: dict[str, Any] = {
    "optimizer.matrix_learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
    "optimizer.betas": {"choices": [[0.9, 0.95], [0.9, 0.99]]},
}


def sweep_fields(store: Path, sweep_dir: Path, run: Any = None, **fields: Any) -> dict[str, Any]:
    """SWEEP.yaml as a mapping: trials of 10 steps; `run` is laid over the tiny run's sections."""
    sections = {
        "training": {"steps": 10, "global_batch": 2},
        "checkpoint": {"every": 4, "keep": 1},
        "evaluation": {"every": 10, "prompts": []},
        **(run or {}),
    }
    keys = run_fields(store, sweep_dir, **sections)
    del keys["run_dir"]
    return {"sweep_dir": str(sweep_dir), "run": keys, "space": SPACE, "trials": 3, **fields}


def write_sweep(path: Path, fields: dict[str, Any]) -> Path:
    """Write a SWEEP.yaml."""
    path.write_text(yaml.safe_dump(fields, allow_unicode=True), encoding="utf-8")
    return path
