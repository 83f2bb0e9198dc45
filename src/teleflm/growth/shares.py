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


def share_out(weight: Tensor, clones: int, factors: Tensor | None) -> Tensor:
    """Columns for clones, which sum to the old column to the last bit.

    Args:
        weight: what reads the old entries, (rows, old).
        clones: how many new entries an old one has.
        factors: float64 (rows, clones, old) near 1, what each clone's share is of W/clones; all
            alike where None. Used up.

    Returns:
        (rows, clones, old) of the weight's dtype.
    """
    if factors is None and clones & (clones - 1) == 0:
        # A division by a power of two loses nothing.
        return (weight / clones)[:, None].expand(-1, clones, -1)
    # Multiples of W's own last digit: they and their sums are exact, also where clones is 3.
    old = weight.double()[:, None]
    digit = torch.full_like(old, torch.finfo(weight.dtype).eps).ldexp_(old.frexp()[1] - 1)
    if factors is None:
        factors = old.new_ones(1, clones, 1)
    shares = factors.expand(len(old), clones, old.shape[-1]).mul(old / clones)
    shares.div_(digit).round_().mul_(digit)
    shares[:, -1] = old[:, 0] - shares[:, :-1].sum(1)
    return shares.to(weight.dtype)


def share_factors(
    symmetry: Symmetry,
    imbalance: float,
    olds: int,
    clones: int,
    stream: tuple[int, str],
    rows: slice,
) -> Tensor | None:
    """What the share of each clone is of an equal one; their mean over the clones is 1.

    Args:
        symmetry: `noise` draws a factor for each weight, `split` has the same for all: from
            1 − imbalance for the first clone to 1 + imbalance for the last.
        imbalance: the largest departure from 1, below 1.
        olds, clones: entries before, and how many each becomes.
        stream: the growth's seed and the tensor's name.
        rows: which rows to make.

    Returns:
        Float64 (rows, clones, old), with dims of 1 where nothing varies; None where all are 1.
    """
    if symmetry == "keep":
        return None
    if symmetry == "split":
        line = torch.linspace(1 - imbalance, 1 + imbalance, clones, dtype=torch.float64)
        return line[None, :, None]
    seed, name = stream
    drawn = uniform(seed, f"{name}/shares", olds * clones, rows).view(-1, clones, olds)
    # Draws in [0, 1) and their mean are less than 1 apart.
    return (drawn - drawn.mean(1, keepdim=True)).mul_(imbalance).add_(1)


def numbered(sources: Tensor, clones: int) -> Tensor:
    """Of each new entry its place among (clones, old), flat: which clone it is, of which old one.

    Args:
        sources: int64 (new,), the old entry of each new one; each has `clones`.
    """
    olds = len(sources) // clones
    number = torch.empty_like(sources)
    number[sources.argsort(stable=True)] = torch.arange(len(sources)) % clones
    return number * olds + sources
