"""Our training step and transformers' Llama on one device: tokens per second, MFU, peak memory.

The part of `benchmarks/parallel.py` for a machine with a GPU. Each side has the device to itself,
one after the other, from the same weights, on the same tokens.
"""

import argparse
import gc
import time
from collections.abc import Iterator
from statistics import median
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.contenders import HuggingFaceLlama, Ours, fresh_state, shape
from benchmarks.train_step import SAME_LOSS
from teleflm.growth.state import TrainingState
from teleflm.model.axes import parameter_count
from teleflm.model.flops import flops_per_token
from teleflm.model.precision import peak_rate

_SIDES = {"teleflm": Ours, "transformers": HuggingFaceLlama}


class Row(NamedTuple):
    """One side at one setting; nothing measured where it did not fit. Memory in bytes, on a GPU."""

    side: str
    compiled: bool
    micro_batch: int
    tokens_per_second: float | None
    mfu: float | None
    memory: int | None


def measure(arguments: argparse.Namespace) -> Iterator[Row]:
    """A row for each side, with and without compile, for each micro-batch.

    Raises:
        RuntimeError: the two sides do not compute the same loss.
    """
    model = shape(arguments.shape, 4096, arguments.sequence_length)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    peak = peak_rate(device, "bf16")
    flops = flops_per_token(model, arguments.sequence_length)
    state = fresh_state(model)
    size = (arguments.batch, arguments.sequence_length + 1)
    batch = torch.randint(model.vocab_size, size, generator=torch.Generator().manual_seed(0))
    batch = batch.to(device)
    expected: float | None = None
    for compiled in arguments.modes:
        for micro_batch in arguments.micro_batches:
            for side in _SIDES:
                found = _time(side, state, batch, micro_batch, compiled == "compiled", arguments)
                if found is None:
                    yield Row(side, compiled == "compiled", micro_batch, None, None, None)
                    continue
                seconds, memory, loss = found
                expected = expected or loss
                if abs(loss - expected) > SAME_LOSS * expected:
                    raise RuntimeError(f"not the same work: first losses {expected} and {loss}")
                rate = batch[:, 1:].numel() / seconds
                mfu = rate * flops / peak if peak else None
                yield Row(side, compiled == "compiled", micro_batch, rate, mfu, memory)


def _time(
    side: str,
    state: TrainingState,
    batch: Tensor,
    micro_batch: int,
    compiled: bool,
    arguments: argparse.Namespace,
) -> tuple[float, int | None, float] | None:
    """Median seconds of a step, its peak memory and the first loss; None where it does not fit."""
    is_gpu = batch.device.type == "cuda"
    gc.collect()  # the side before
    torch.compiler.reset()
    if is_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    try:
        contender = _SIDES[side](state, batch, micro_batch, compile=compiled)
        loss = contender()
        contender()
        seconds = []
        for _ in range(arguments.steps):
            start = time.perf_counter()
            contender()
            if is_gpu:
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
    except torch.OutOfMemoryError:
        return None
    return median(seconds), torch.cuda.max_memory_allocated() if is_gpu else None, loss


def report(arguments: argparse.Namespace) -> int:
    """Print a line as it is measured; 1 where the best of ours is below the goal."""
    model = shape(arguments.shape, 4096, arguments.sequence_length)
    is_gpu = torch.cuda.is_available()
    print(
        f"{torch.cuda.get_device_name() if is_gpu else 'CPU'}, torch {torch.__version__}; "
        f"{parameter_count(model) / 1e9:.2f} B parameters, vocabulary {model.vocab_size:,}, bf16, "
        f"{arguments.batch} × {arguments.sequence_length:,} tokens a step; MFU counts 6 FLOPs a "
        "matrix entry and causal attention"
    )
    print(f"{'':14}{'':10}{'micro-batch':>12}{'tokens/s':>12}{'MFU':>9}{'memory':>12}")
    best = 0.0
    for row in measure(arguments):
        mode = "compiled" if row.compiled else "eager"
        rate = "no memory" if row.tokens_per_second is None else f"{row.tokens_per_second:,.0f}"
        mfu = "–" if row.mfu is None else f"{row.mfu:.1%}"
        memory = "–" if row.memory is None else f"{row.memory / 2**30:.1f} GiB"
        print(
            f"{row.side:14}{mode:10}{row.micro_batch:>12}{rate:>12}{mfu:>9}{memory:>12}", flush=True
        )
        if row.side == "teleflm":
            best = max(best, row.mfu or 0.0)
    verdict = "reached" if best >= arguments.goal else "not reached"
    print(f"best of ours {best:.1%} MFU; the goal of {arguments.goal:.0%} is {verdict}")
    return int(best < arguments.goal)
