"""What the matrix products of a training step take at best, at their own shapes."""

import time

import torch

from teleflm.config.model import ModelConfig
from teleflm.model.axes import EMBEDDING, PARAMETERS

_REPEATS = 6


def product_rate(model: ModelConfig, tokens: int, dtype: torch.dtype) -> float:
    """FLOP/s on the CPU of the products of `tokens` tokens with each matrix of `model`, forward
    and of both gradients, each at its best: all their FLOPs over the sum of their times.

    The logits of all tokens are formed at once here, which a step that has many does not do.
    """
    flops = seconds = 0.0
    known: dict[tuple[int, int], float] = {}
    for pattern, parameter in PARAMETERS.items():
        if not parameter.is_matrix or pattern == EMBEDDING:
            continue
        rows, columns = parameter.shape(model)
        if (rows, columns) not in known:
            known[rows, columns] = _seconds(tokens, rows, columns, dtype)
        repeats = model.num_hidden_layers if "*" in pattern else 1
        flops += repeats * 6 * tokens * rows * columns
        seconds += repeats * known[rows, columns]
    return flops / seconds


def _seconds(tokens: int, rows: int, columns: int, dtype: torch.dtype) -> float:
    x, weight, y = (
        torch.randn(shape, dtype=dtype)
        for shape in ((tokens, columns), (rows, columns), (tokens, rows))
    )
    into_y, into_x, into_weight = (torch.empty_like(tensor) for tensor in (y, x, weight))
    total = 0.0
    for a, b, out in ((x, weight.T, into_y), (y, weight, into_x), (y.T, x, into_weight)):
        best = float("inf")
        for _ in range(_REPEATS):
            start = time.perf_counter()
            torch.mm(a, b, out=out)
            best = min(best, time.perf_counter() - start)
        total += best
    return total
