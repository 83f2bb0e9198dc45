"""Growing a checkpoint on disk: its speed beside `cp` and sync, and the memory that it takes.

    python benchmarks/growth.py --folder /tmp

Makes a parent of random numbers, grows it by each operator with `teleflm grow` in a process of its
own, and copies what came out, in turn. Fails below 70 % of the peer's speed for the bytes written,
or where a process takes more than three times the largest tensor and 500 MB.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.timing import Pairs
from teleflm.checkpoint.stream import state_bytes, write_state
from teleflm.config.base import write_yaml
from teleflm.config.model import ModelConfig
from teleflm.growth.event import Event
from teleflm.growth.state import Kind, LazyState
from teleflm.model.axes import parameter_names, parameter_of
from teleflm.model.region import Region, region_shape

_SPEED, _TENSORS, _BESIDE = 0.7, 3.0, 500e6
_OPERATORS: dict[str, list[str]] = {
    "mask": [],
    "clone": ["--width", "clone", "--depth", "zero"],
    "zero": ["--width", "zero", "--depth", "zero"],
}


def models(gigabytes: float) -> tuple[ModelConfig, ModelConfig]:
    """A parent, and a child twice as wide whose checkpoint takes about so many GB."""
    shape: dict[str, Any] = {"vocab_size": 32_000, "num_hidden_layers": 4}
    child = {"hidden_size": 2048, "intermediate_size": 5632, "num_attention_heads": 16}
    layer = 4 * 2048**2 + 3 * 2048 * 5632
    layers = int((gigabytes * 1e9 / 12 - 2 * 32_000 * 2048) // layer)
    parent = {key: size // 2 for key, size in child.items()}
    return (
        ModelConfig.model_validate({**shape, **parent, "num_hidden_layers": max(1, layers - 2)}),
        ModelConfig.model_validate({**shape, **child, "num_hidden_layers": max(1, layers)}),
    )


def random_state(model: ModelConfig) -> LazyState:
    """Random numbers, drawn as they are read."""

    def read(kind: Kind, name: str, region: Region) -> Tensor:
        value = torch.randn(region_shape(region))
        return value.square_() if kind == "exp_avg_sq" else value

    lineage = (Event(operator="init", to=model),)
    counts = {"adam_steps": 9, "step": 9, "tokens": 9, "sequences": 9, "flops": 9}
    return LazyState(model=model, lineage=lineage, read=read, dtype=torch.float32, **counts)


def grow(parent: Path, grown: Path, to: Path, options: list[str]) -> int:
    """Grow in a process of its own; the bytes of memory that it took at the most."""
    command = [sys.executable, "-m", "teleflm", "grow", str(parent), str(grown)]
    command += ["--to", str(to), "--place", "even", *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"{' '.join(command)} failed")
    return usage.ru_maxrss * 1024


def copy(grown: Path, copied: Path) -> None:
    """`cp` and sync."""
    subprocess.run(["cp", "-r", str(grown), str(copied)], check=True)
    subprocess.run(["sync", *map(str, copied.iterdir())], check=True)


def main(command_line: list[str] | None = None) -> int:
    """Measure and print; 1 where a bound is broken."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--folder", type=Path, help="on the disk to measure; the system's for tmp")
    parser.add_argument("--gigabytes", type=float, default=9.0, help="of what is written")
    parser.add_argument("--pairs", type=int, default=3, help="measured pairs")
    parser.add_argument("--operators", nargs="+", choices=_OPERATORS, default=list(_OPERATORS))
    arguments = parser.parse_args(command_line)
    model, child = models(arguments.gigabytes)
    largest = max(
        4 * torch.Size(parameter_of(name).shape(child)).numel() for name in parameter_names(child)
    )
    holds = True
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        parent, grown, copied, to = (folder / each for each in ("parent", "grown", "copy", "to"))
        write_state(parent, random_state(model), None)
        write_yaml(to, child)
        size = state_bytes(random_state(child))
        print(f"{size / 1e9:.1f} GB to write, largest tensor {largest / 1e6:.0f} MB")
        for operator in arguments.operators:
            times: tuple[list[float], list[float]] = ([], [])
            memory = 0
            for _ in range(arguments.pairs):
                os.sync()
                start = time.perf_counter()
                memory = max(memory, grow(parent, grown, to, _OPERATORS[operator]))
                times[0].append(time.perf_counter() - start)
                os.sync()
                start = time.perf_counter()
                copy(grown, copied)
                times[1].append(time.perf_counter() - start)
                shutil.rmtree(grown)
                shutil.rmtree(copied)
            pairs = Pairs(*times)
            ours, theirs = (size / median(side) / 1e9 for side in times)
            allowed = _TENSORS * largest + _BESIDE
            print(
                f"{operator:6} {ours:5.2f} GB/s   cp and sync {theirs:5.2f} GB/s   ratio "
                f"{pairs.ratio:.2f} ({pairs.ratios[0]:.2f} to {pairs.ratios[-1]:.2f})   memory "
                f"{memory / 1e6:,.0f} MB of {allowed / 1e6:,.0f} allowed",
                flush=True,
            )
            holds &= pairs.ratio >= _SPEED and memory <= allowed
    return int(not holds)


if __name__ == "__main__":
    sys.exit(main())
