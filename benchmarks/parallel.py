"""What parallelism costs and brings, and how much of a GPU a step uses.

    python benchmarks/parallel.py                       # each axis on 2, 4 and 8 gloo ranks
    python benchmarks/parallel.py --gpu                 # one GPU beside transformers' Llama

The second is what runs where there is a GPU. It fails below the goal of 50 % MFU.
"""

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import mean, median
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import one_device
from benchmarks.contenders import Ours, fresh_state
from benchmarks.timing import Pairs
from benchmarks.train_step import SAME_LOSS
from teleflm.config.model import ModelConfig
from teleflm.config.run import ParallelConfig, TrainingConfig
from teleflm.growth.state import Tensors, TrainingState
from teleflm.parallel.layout import Layout, regions
from teleflm.parallel.many import ManyRanks
from teleflm.parallel.mesh import build_mesh
from teleflm.parallel.recipe import Recipe

AXES = ("tp", "pp", "dp_shard", "dp_replicate")
# Every axis divides by 8.
MODEL = ModelConfig.model_validate(
    {
        "vocab_size": 1024,
        "hidden_size": 128,
        "intermediate_size": 352,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "max_position_embeddings": 128,
    }
)
_BATCH = 16


class Found(NamedTuple):
    """An axis on so many ranks: seconds of their step beside one process's, and the share of it
    that a rank waited for others, the mean over ranks and steps."""

    axis: str
    ranks: int
    pairs: Pairs
    waiting: float


class Waits:
    """Seconds that this process stood waiting for collectives, sends and receives."""

    seconds = 0.0

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Where the waiting is done is wrapped: a `Work`'s own wait, and that of the functional
        collectives, which DTensor uses. What goes on while the rank computes does not count."""
        functional = torch.ops._c10d_functional
        with (
            patch.object(dist.Work, "wait", self._wrap(dist.Work.wait)),
            patch.object(functional, "wait_tensor", self._wrap(functional.wait_tensor)),
        ):
            yield

    def _wrap(self, wait: Any) -> Any:
        def wrapped(*arguments: Any, **more: Any) -> Any:
            start = time.perf_counter()
            try:
                return wait(*arguments, **more)
            finally:
                self.seconds += time.perf_counter() - start

        return wrapped


def part_of(state: TrainingState, layout: Layout, rank: int) -> TrainingState:
    """What a rank holds of a whole state."""
    held = regions(layout, state.model, rank)

    def part(tensors: Tensors) -> Tensors:
        return {name: tensors[name][region] for name, region in held.items()}

    return replace(
        state,
        weights=part(state.weights),
        exp_avg=part(state.exp_avg),
        exp_avg_sq=part(state.exp_avg_sq),
        regions=held,
    )


def measure(axis: str, length: int, pairs: int) -> Found:
    """Time an axis on all ranks: in turn, the first alone takes the whole step while the others
    sleep, then all of them take it together. Every rank calls this.

    Raises:
        RuntimeError: the two do not compute the same loss.
    """
    rank, ranks = dist.get_rank(), dist.get_world_size()
    state = fresh_state(MODEL)
    size = (_BATCH, length + 1)
    batch = torch.randint(MODEL.vocab_size, size, generator=torch.Generator().manual_seed(0))
    layout = Layout(**{axis: ranks})
    training = TrainingConfig(steps=1, global_batch=_BATCH, dtype="bf16")
    recipe = Recipe(ParallelConfig.model_validate({axis: ranks}), training, torch.float32)
    engine = ManyRanks(MODEL, build_mesh(layout, rank, torch.device("cpu")), recipe)
    mine = batch.chunk(layout.dp)[engine.data_rank]
    alone = Ours(state, batch, _BATCH)
    together = Ours(part_of(state, layout, rank), mine, _BATCH, engine=engine)
    waits, seconds, shares = Waits(), ([], []), []  # type: ignore[var-annotated]
    for index in range(1 + pairs):
        dist.barrier()
        start = time.perf_counter()
        if rank == 0:
            expected = alone()
        dist.barrier()
        seconds[0].append(time.perf_counter() - start)
        waits.seconds, start = 0.0, time.perf_counter()
        with waits.counted():
            loss = together()
            dist.barrier()
        seconds[1].append(time.perf_counter() - start)
        shares.append(waits.seconds / seconds[1][-1])
        if rank == 0 and index == 0 and abs(loss - expected) > SAME_LOSS * expected:
            raise RuntimeError(f"not the same work: first losses {expected} and {loss}")
    everyone = [0.0] * ranks
    dist.all_gather_object(everyone, mean(shares[1:]))
    return Found(axis, ranks, Pairs(seconds[0][1:], seconds[1][1:]), mean(everyone))


def one_rank(rank: int, ranks: int, folder: str, length: int, pairs: int, results: Any) -> None:
    """The life of a rank: every axis on as many as there are."""
    torch.set_num_threads(1)
    meeting = f"file://{folder}/meeting"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=ranks)
    for axis in AXES:
        found = measure(axis, length, pairs)
        if rank == 0:
            results.put(found)
    dist.barrier()
    dist.destroy_process_group()


def on_ranks(ranks: int, length: int, pairs: int) -> Iterator[Found]:
    """All axes on that many processes of this machine."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        arguments = (ranks, folder, length, pairs, results)
        processes = [context.Process(target=one_rank, args=(r, *arguments)) for r in range(ranks)]
        for process in processes:
            process.start()
        for _ in AXES:
            yield results.get(timeout=300)
        for process in processes:
            process.join()


def report(arguments: argparse.Namespace) -> int:
    """Print a line for each axis on each number of ranks."""
    cores = len(os.sched_getaffinity(0))
    print(
        f"{cores} cores, torch {torch.__version__}, gloo, one thread a rank; {_BATCH} × "
        f"{arguments.length} tokens a step, bf16, median of {arguments.pairs} pairs\n"
        "More ranks than cores share them, so times are ratios on shared cores: `perfect` is one "
        "process's time over the cores at work.\n"
        "`waiting` is the share of the step that a rank stands in Work.wait and wait_tensor "
        "(wrapped), also for a rank that waits for a core.\n"
        f"{'axis':14}{'ranks':>6}{'one process':>13}{'step':>10}{'perfect':>10}"
        f"{'speed-up':>10}{'of perfect':>12}{'waiting':>9}"
    )
    for ranks in arguments.ranks:
        for found in on_ranks(ranks, arguments.length, arguments.pairs):
            at_work = min(ranks, cores)
            alone, together = (
                median(side) * 1e3 for side in (found.pairs.ours, found.pairs.theirs)
            )
            # `ratio` is how many times as fast the one process is.
            speed_up = 1 / found.pairs.ratio
            print(
                f"{found.axis:14}{ranks:>6}{alone:>10,.0f} ms{together:>7,.0f} ms"
                f"{alone / at_work:>7,.0f} ms{speed_up:>10.2f}{speed_up / at_work:>12.0%}"
                f"{found.waiting:>9.0%}",
                flush=True,
            )
    return 0


def parse(command_line: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    gpu = torch.cuda.is_available()
    parser.add_argument("--gpu", action="store_true", default=gpu, help="one device, not the axes")
    axes = parser.add_argument_group("each axis")
    axes.add_argument("--ranks", type=int, nargs="+", default=[2, 4, 8])
    axes.add_argument("--length", type=int, default=128, help="tokens in a sequence")
    axes.add_argument("--pairs", type=int, default=5, help="measured pairs")
    device = parser.add_argument_group("one device")
    shape = str(Path(__file__).with_name("tele-flm-1.3b.yaml"))
    device.add_argument("--shape", default=shape, help="a preset, YAML file or model folder")
    device.add_argument("--sequence-length", type=int, default=4096)
    device.add_argument("--batch", type=int, default=8, help="sequences a step")
    device.add_argument("--micro-batches", type=int, nargs="+", default=[1, 2, 4])
    modes = ("eager", "compiled")
    device.add_argument("--modes", choices=modes, nargs="+", default=modes)
    device.add_argument("--steps", type=int, default=5, help="measured steps")
    device.add_argument("--goal", type=float, default=0.5, help="MFU")
    return parser.parse_args(command_line)


def main(command_line: list[str] | None = None) -> int:
    """Measure and print; the exit code."""
    arguments = parse(command_line)
    return one_device.report(arguments) if arguments.gpu else report(arguments)


if __name__ == "__main__":
    sys.exit(main())
