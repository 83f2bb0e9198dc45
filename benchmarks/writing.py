"""Two ways of writing beside each other: weights of 8 bits, many rows at a time, long prompts."""

import argparse
import time
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.timing import Pairs, time_alternately
from teleflm.generation.decoder import IncrementalDecoder
from teleflm.generation.generate import generate
from teleflm.model.network import Linear, TeleFLM


@dataclass(frozen=True)
class Comparison:
    """Tokens per second of two contenders, medians of the rounds; ratios ours over theirs, round
    by round. `share` is of the rate of the products alone, where that is measured."""

    ours: str
    theirs: str
    tokens_per_second: tuple[float, float]
    ratio_min: float
    ratio: float
    ratio_max: float
    share: float | None = None


def int8(network: TeleFLM, prompt: list[int], number: int, rounds: int) -> Comparison:
    """One row with weights of 8 bits against float32."""
    small, whole = (IncrementalDecoder(network, weights) for weights in ("int8", "fp32"))
    pairs = time_alternately(
        lambda: generate(small, [prompt], number), lambda: generate(whole, [prompt], number), rounds
    )
    return _compared("int8", "fp32", pairs, (number, number))


def batch(network: TeleFLM, prompt: list[int], number: int, rounds: int, rows: int) -> Comparison:
    """Prompts that are written together, of one length to half of it, against one alone.

    Raises RuntimeError where a prompt of the batch has another text than alone.
    """
    many, one = IncrementalDecoder(network, many_rows=True), IncrementalDecoder(network)
    # Each another one.
    prompts = [[*prompt[row % (1 + len(prompt) // 2) :], row] for row in range(rows)]
    together = generate(many, prompts, number)
    alone = [generate(one, [each], number)[0] for each in prompts]
    different = [row for row in range(rows) if together[row] != alone[row]]
    if different:
        raise RuntimeError(f"not the same work: rows {different} have another text alone")
    pairs = time_alternately(
        lambda: generate(many, prompts, number), lambda: generate(one, [prompt], number), rounds
    )
    return _compared(f"{rows} rows", "1 row", pairs, (rows * number, number))


def prefill(network: TeleFLM, llama: Any, prompt: list[int], rounds: int) -> Comparison:
    """Reading a prompt against transformers, and against plain products of the same matrices.

    Raises RuntimeError where the two have another likeliest token behind it.
    """
    decoder, tokens = IncrementalDecoder(network), torch.tensor([prompt])
    inputs = {
        linear: torch.randn(len(prompt), linear.in_features)
        for linear in network.modules()
        if isinstance(linear, Linear) and linear is not network.lm_head
    }

    def ours() -> Tensor:
        with torch.inference_mode():
            return decoder.begin([prompt])[0]

    def theirs() -> Tensor:
        with torch.inference_mode():
            logits: Tensor = llama(tokens, use_cache=True, logits_to_keep=1).logits[:, -1]
            return logits

    def products() -> None:
        with torch.inference_mode():
            for linear, x in inputs.items():
                F.linear(x, linear.weight)

    if ours().argmax() != theirs().argmax():
        raise RuntimeError("not the same work: another token is the likeliest")
    shares, rounded = [], Pairs([], [])
    for _ in range(rounds):
        start = time.perf_counter()
        products()
        seconds = time.perf_counter() - start
        pair = time_alternately(ours, theirs, 1, warmup=0)
        rounded.ours.extend(pair.ours)
        rounded.theirs.extend(pair.theirs)
        shares.append(seconds / pair.ours[0])
    compared = _compared("teleflm", "transformers", rounded, (len(prompt), len(prompt)))
    return Comparison(**{**vars(compared), "share": median(shares)})


def _compared(ours: str, theirs: str, pairs: Pairs, tokens: tuple[int, int]) -> Comparison:
    rates = median(pairs.ours), median(pairs.theirs)
    ratios = [ratio * tokens[0] / tokens[1] for ratio in pairs.ratios]
    per_second = tokens[0] / rates[0], tokens[1] / rates[1]
    return Comparison(ours, theirs, per_second, ratios[0], median(ratios), ratios[-1])


def table(found: Comparison) -> str:
    """The comparison for a terminal."""
    names = (found.ours, found.theirs)
    lines = [
        f"{torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads",
        "",
        f"{'':14}{'tokens/s':>12}",
        *(
            f"{name:14}{rate:>12,.1f}"
            for name, rate in zip(names, found.tokens_per_second, strict=True)
        ),
        "",
        f"ratio {found.ratio:.2f} (median of the rounds; {found.ratio_min:.2f} to "
        f"{found.ratio_max:.2f})",
    ]
    if found.share is not None:
        lines.append(f"{found.share:.1%} of the products' rate")
    return "\n".join(lines)


def missed(found: Comparison, arguments: argparse.Namespace) -> list[str]:
    """What is slower than asked for."""
    return too_slow(
        (found.ratio, arguments.at_least, f"times the tokens per second of {found.theirs}"),
        (found.share or 0.0, arguments.share, "of the products' rate"),
    )


def too_slow(*checks: tuple[float, float | None, str]) -> list[str]:
    """A message for each figure below what is wanted of it."""
    return [
        f"too slow: {got:.2f} {what}, and not the {wanted:.2f} asked for"
        for got, wanted, what in checks
        if wanted is not None and got < wanted
    ]
