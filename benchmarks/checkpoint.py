"""Saving and loading beside what the disk can do: `cp` and sync, and a plain cold read, in turn.

    python benchmarks/checkpoint.py --folder /tmp

Prints a row each for one process and for two ranks by gloo, and fails below 80 % of the peer or
where saving takes as much memory again as twice the local state.
"""

import argparse
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.timing import Pairs
from teleflm.checkpoint.background import Staging
from teleflm.checkpoint.load import load_checkpoint
from teleflm.checkpoint.save import save_checkpoint
from teleflm.config.model import ModelConfig
from teleflm.growth.event import Event
from teleflm.growth.state import Tensors, TrainingState
from teleflm.model.region import Region, region_shape
from teleflm.parallel.layout import Layout, regions

# Of the peer's speed, and in states.
_SPEED, _MEMORY = 0.8, 2.0


class Found(NamedTuple):
    """What one rank measured; memory in multiples of its state."""

    bytes: int
    save: Pairs
    load: Pairs
    save_memory: float
    staged_memory: float


def model_of(megabytes: int) -> ModelConfig:
    """A model whose weights and moments take about so many MB."""
    shape: dict[str, Any] = {
        "vocab_size": 4096,
        "hidden_size": 512,
        "intermediate_size": 1536,
        "num_attention_heads": 8,
    }
    layer = 4 * 512**2 + 3 * 512 * 1536
    layers = (megabytes * 1_000_000 // 12 - 2 * 4096 * 512) // layer
    return ModelConfig.model_validate({**shape, "num_hidden_layers": max(1, layers)})


def state_of(model: ModelConfig, held: dict[str, Region]) -> TrainingState:
    """Random numbers: zeros would be pages that take no memory."""

    def tensors() -> Tensors:
        return {name: torch.randn(region_shape(region)) for name, region in held.items()}

    return TrainingState(
        model=model,
        weights=tensors(),
        exp_avg=tensors(),
        exp_avg_sq=tensors(),
        adam_steps=1,
        step=1,
        tokens=1,
        sequences=1,
        flops=1,
        lineage=(Event(operator="init", to=model),),
        regions=held,
    )


def measure(rank: int, ranks: int, folder: Path, megabytes: int, pairs: int) -> Found:
    """What one rank measures while the others do the same."""
    model = model_of(megabytes * ranks)
    held = regions(Layout(dp_shard=ranks), model, rank)
    state = state_of(model, held)
    kinds = (state.weights, state.exp_avg, state.exp_avg_sq)
    size = sum(tensor.nbytes for kind in kinds for tensor in kind.values())
    source, saved, copied = folder / "source", folder / "saved", folder / f"copied-{rank}"
    save_checkpoint(source, state, None, None)
    mine = [str(path) for path in sorted(source.glob("*.safetensors"))[rank::ranks]]

    def save() -> None:
        save_checkpoint(saved, state, None, None)

    def copy() -> None:
        subprocess.run(["cp", *mine, str(copied)], check=True)
        subprocess.run(["sync", *map(str, copied.iterdir())], check=True)

    def tidy() -> None:
        if rank == 0:
            shutil.rmtree(saved, ignore_errors=True)
        shutil.rmtree(copied, ignore_errors=True)
        copied.mkdir()
        read(mine)
        os.sync()

    def forget() -> None:
        for path in mine:
            with open(path, "rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def save_staged() -> None:
        save_checkpoint(saved, Staging().copy(state), None, None, force=True)

    save_memory = extra_memory(save) / size
    staged_memory = extra_memory(save_staged) / size
    return Found(
        bytes=size,
        save=in_turn(save, copy, tidy, pairs),
        load=in_turn(lambda: load_checkpoint(source, held), lambda: read(mine), forget, pairs),
        save_memory=save_memory,
        staged_memory=staged_memory,
    )


def in_turn(
    ours: Callable[[], object], theirs: Callable[[], object], before: Callable[[], None], pairs: int
) -> Pairs:
    """Seconds of both until the last rank is done; `before` each comes what is not timed."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(pairs):
        for contender, times in zip((ours, theirs), seconds, strict=True):
            before()
            wait_for_all()
            start = time.perf_counter()
            contender()
            wait_for_all()
            times.append(time.perf_counter() - start)
    return Pairs(*seconds)


def wait_for_all() -> None:
    """Where there are others."""
    if dist.is_initialized():
        dist.barrier()


def read(paths: list[str]) -> None:
    """Read files and drop what was read."""
    buffer = bytearray(1 << 20)
    for path in paths:
        with open(path, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def extra_memory(action: Callable[[], object]) -> int:
    """Bytes by which this process grows during `action`, at the most."""
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    action()
    return resident("VmHWM") - before


def resident(key: str) -> int:
    """Bytes of this process in memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def on_ranks(ranks: int, folder: Path, megabytes: int, pairs: int) -> list[Found]:
    """Measure on that many processes at once."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    arguments = (ranks, folder, megabytes, pairs, results)
    processes = [context.Process(target=one_rank, args=(r, *arguments)) for r in range(ranks)]
    for process in processes:
        process.start()
    found = [results.get(timeout=600) for _ in processes]
    for process in processes:
        process.join()
    return found


def one_rank(rank: int, ranks: int, folder: Path, megabytes: int, pairs: int, results: Any) -> None:
    """The life of a rank."""
    torch.set_num_threads(1)
    if ranks > 1:
        meeting = f"file://{folder / 'meeting'}"
        dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=ranks)
    results.put(measure(rank, ranks, folder, megabytes, pairs))
    wait_for_all()


def main(command_line: list[str] | None = None) -> int:
    """Measure and print; 1 where a bound is broken."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--folder", type=Path, help="on the disk to measure; the system's for tmp")
    parser.add_argument("--megabytes", type=int, default=400, help="of state, for each rank")
    parser.add_argument("--pairs", type=int, default=7, help="measured pairs")
    arguments = parser.parse_args(command_line)
    holds = True
    for ranks in (1, 2):
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            found = on_ranks(ranks, Path(folder), arguments.megabytes, arguments.pairs)
        total = sum(each.bytes for each in found)
        print(f"{ranks} rank{'s' * (ranks > 1)}, {total / 1e6:,.0f} MB")
        for what, pairs, peer in (
            ("save", found[0].save, "cp and sync"),
            ("load", found[0].load, "cold read"),
        ):
            ours, theirs = (total / median(side) / 1e9 for side in (pairs.ours, pairs.theirs))
            low, high = pairs.ratios[0], pairs.ratios[-1]
            print(
                f"  {what} {ours:5.2f} GB/s   {peer:11} {theirs:5.2f} GB/s   "
                f"ratio {pairs.ratio:.2f} ({low:.2f} to {high:.2f})"
            )
            holds &= pairs.ratio >= _SPEED
        for what, memory in (
            ("save", max(each.save_memory for each in found)),
            ("asynchronous save", max(each.staged_memory for each in found)),
        ):
            print(f"  memory for {what}: {memory:.2f} of the state")
            holds &= memory < _MEMORY
    return int(not holds)


if __name__ == "__main__":
    sys.exit(main())
