"""Clones of what consumes: one weight becomes several that sum to it exactly.

Entries that are clones of one another have equal values. What reads them may share its weight W
among their columns in any way, and the function stays: Σ wₖ = W. Equal shares keep the clones equal
for ever; unequal ones send them different gradients, and they part (Net2Net, arXiv 1511.05641;
HyperCloning, arXiv 2409.12903).
"""

import torch
from torch import Tensor

from teleflm.config.growth import Symmetry
from teleflm.model.init import uniform


def share_out(weight: Tensor, sources: Tensor, clones: int, factors: Tensor | None) -> Tensor:
    """Columns for clones, which sum to the old column to the last bit.

    Args:
        weight: what reads the old entries, (rows, old).
        sources: int64 (new,), the old entry of each new one; each has `clones`.
        clones: how many new entries an old one has.
        factors: float64 (rows, new) near 1, what each clone's share is of W/clones; all alike
            where None.

    Returns:
        (rows, new) of the weight's dtype.
    """
    equal = weight[:, sources] / clones
    if factors is None and clones & (clones - 1) == 0:
        return equal  # a division by a power of two loses nothing
    # Multiples of W's own last digit: they and their sums are exact, also where clones is 3.
    old = weight.double()
    digit = torch.full_like(old, torch.finfo(weight.dtype).eps).ldexp(old.frexp()[1] - 1)
    shares = old[:, sources] / clones
    if factors is not None:
        shares *= factors
    shares = shares.div_(digit[:, sources]).round_().mul_(digit[:, sources])
    last = _number(sources) == clones - 1
    rest = old.index_add(1, sources[~last], shares[:, ~last], alpha=-1)
    shares[:, last] = rest[:, sources[last]]
    return shares.to(weight.dtype)


def factors(
    symmetry: Symmetry,
    imbalance: float,
    sources: Tensor,
    clones: int,
    stream: tuple[int, str],
    rows: slice,
) -> Tensor | None:
    """What the share of each clone is of an equal one; their mean over the clones is 1.

    Args:
        symmetry: `noise` draws a factor for each weight, `split` has the same for all: from
            1 − imbalance for the first clone to 1 + imbalance for the last.
        imbalance: the largest departure from 1, below 1.
        sources, clones: see `share_out`.
        stream: the growth's seed and the tensor's name.
        rows: which rows to make.

    Returns:
        Float64 (rows, new), None where all are 1.
    """
    if symmetry == "keep" or clones == 1:
        return None
    if symmetry == "split":
        line = torch.linspace(1 - imbalance, 1 + imbalance, clones, dtype=torch.float64)
        return line[_number(sources)].expand(rows.stop - rows.start, -1)
    seed, name = stream
    drawn = uniform(seed, f"{name}/shares", len(sources), rows) * 2 - 1
    olds = len(sources) // clones
    mean = drawn.new_zeros(len(drawn), olds).index_add_(1, sources, drawn) / clones
    # Two draws and their mean are at most 2 apart.
    return 1 + (imbalance / 2) * (drawn - mean[:, sources])


def _number(sources: Tensor) -> Tensor:
    """Of each new entry, how many clones of the same old one stand before it."""
    order = sources.argsort(stable=True)
    clones = len(sources) // (int(sources.max()) + 1)
    number = torch.empty_like(sources)
    number[order] = torch.arange(len(sources)) % clones
    return number
