"""A sweep by a worker a core beside the same trials one after another with all threads.

    python benchmarks/sweep.py --store store

Runs a grid of both learning rates of examples/nano.yaml: as a sweep, each trial as a `teleflm
train` of its own, and as a sweep with a pruner. Fails below 1.6 times the trials per hour unpruned,
where losses are not the same, or where another trial is the best one with the pruner.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

_SPEED = 1.6
# Sums are taken in another order by another number of threads.
_SAME = 5e-3
_ROOT = Path(__file__).resolve().parents[1]
_SPACE: dict[str, Any] = {
    "optimizer.matrix_learning_rate": {"low": 5e-4, "high": 3.2e-2, "log": True, "steps": 4},
    "optimizer.learning_rate": {"low": 3e-3, "high": 3e-1, "log": True, "steps": 3},
}


def teleflm(*words: object, threads: int | None = None) -> str:
    """Run a command; its standard output."""
    limit = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", "teleflm", *map(str, words)]
    environment = {**os.environ, **limit}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    return done.stdout


def sweep(folder: Path, arguments: argparse.Namespace, pruner: str) -> tuple[dict[str, Any], float]:
    """Run a sweep; what it found, and the seconds that it took."""
    run = yaml.safe_load((_ROOT / "examples/nano.yaml").read_text(encoding="utf-8"))
    del run["run_dir"]
    run["model"] = arguments.model
    run["data"] = {"path": str(arguments.store), "sequence_length": 128}
    run["training"]["steps"] = arguments.steps
    run["schedule"]["warmup_steps"] = arguments.steps // 10
    run["checkpoint"]["every"] = run["evaluation"]["every"] = arguments.steps
    run["evaluation"]["prompts"] = []
    fields = {
        "sweep_dir": str(folder), "run": run, "space": _SPACE, "sampler": "grid",
        "trials": arguments.trials, "workers": arguments.workers, "pruner": pruner,
    }  # fmt: skip
    path = folder.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(fields), encoding="utf-8")
    start = time.perf_counter()
    teleflm("sweep", path)
    seconds = time.perf_counter() - start
    return json.loads(teleflm("sweep", "report", folder, "--json")), seconds


def one_after_another(
    folder: Path, trials: list[dict[str, Any]], workers: int
) -> tuple[list[float], float]:
    """Train each trial of a sweep by itself, with all threads; the losses and the seconds."""
    losses, start = [], time.perf_counter()
    for trial in trials:
        config = folder / "trials" / f"{trial['number']:04}" / "config.yaml"
        run_dir = folder.with_name("single") / f"{trial['number']:04}"
        teleflm("train", config, f"run_dir={run_dir}", threads=workers)
        lines = (run_dir / "evaluation.jsonl").read_text(encoding="utf-8").splitlines()
        losses.append(json.loads(lines[-1])["loss"])
    return losses, time.perf_counter() - start


def main(command_line: list[str] | None = None) -> int:
    """Measure and print; 1 where a bound is broken."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--store", type=Path, required=True, help="a token store")
    parser.add_argument("--model", default="nano-52b", help="MODEL of the trials")
    parser.add_argument("--steps", type=int, default=60, help="of a trial; a tenth warms up")
    parser.add_argument("--trials", type=int, default=12, help="of the grid of 12")
    parser.add_argument("--workers", type=int, default=2, help="and threads of a single run")
    parser.add_argument("--pruner", default="median", choices=["median", "halving"])
    arguments = parser.parse_args(command_line)
    with tempfile.TemporaryDirectory() as name:
        whole, seconds = sweep(Path(name, "whole"), arguments, "none")
        losses, single = one_after_another(Path(name, "whole"), whole["trials"], arguments.workers)
        pruned, shorter = sweep(Path(name, "pruned"), arguments, arguments.pruner)
    count = len(losses)
    pairs = [(t["loss"], loss) for t, loss in zip(whole["trials"], losses, strict=True)]
    # A trial that diverged has no loss to compare.
    apart = max(abs(one / other - 1) for one, other in pairs if one is not None)
    ended = sum(trial["state"] == "pruned" for trial in pruned["trials"])
    speed = single / seconds
    for what, took in (("one after another", single), ("sweep", seconds), ("pruned", shorter)):
        print(f"{what:18} {took:7.1f} s  {3600 * count / took:7.1f} trials an hour")
    print(f"the sweep has {speed:.2f} times the trials per hour (bound {_SPEED})")
    print(f"losses differ by {apart:.1e} at most, relative (bound {_SAME})")
    print(f"{ended} of {count} trials pruned, {seconds / shorter:.2f} times as fast again")
    print(f"best trial {whole['best_trial']}, with the pruner {pruned['best_trial']}")
    holds = speed >= _SPEED and apart <= _SAME
    return 0 if holds and whole["best_trial"] == pruned["best_trial"] else 1


if __name__ == "__main__":
    sys.exit(main())
