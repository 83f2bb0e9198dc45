"""L = E + A·N^-alpha + B·D^-beta: what more tokens D do, from the runs' curves.

The part of N is the law of the runs' ends. That of D is fitted to the curves themselves: each run
has a level of its own, B and beta are those of all of them, and for each beta that is a linear
regression on (D^-beta − 1) / -beta. So a run that is above the law, or whose batches were easy,
does not pass for an effect of tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from teleflm.prediction.law import Array, basis, t_quantile

STEEPEST, FLATTEST = -2.0, -0.01
_STEPS, _ROUNDS = 65, 6


@dataclass(frozen=True)
class Curve:
    """Losses of a run by tokens (in millions), and its size (in millions of parameters)."""

    size: float
    tokens: Array
    losses: Array


@dataclass(frozen=True)
class TokenLaw:
    """B·D^-beta, D in millions of tokens."""

    B: float
    beta: float

    def shift(self, before: float, after: float) -> float:
        """By how much the loss changes from so many tokens to so many."""
        return float(self.B * (after**-self.beta - before**-self.beta))

    @property
    def is_at_edge(self) -> bool:
        """Whether a steeper or a flatter one than those that are searched would fit better."""
        return not 1.01 * FLATTEST > -self.beta > 0.99 * STEEPEST


def fit_tokens(curves: Sequence[Curve]) -> TokenLaw:
    """The law of all curves; each has two points or more."""
    tokens = np.concatenate([curve.tokens for curve in curves])
    losses = np.concatenate([curve.losses - curve.losses.mean() for curve in curves])
    # (points, curves): its product with what belongs to points is their mean by curve.
    member = np.repeat(np.eye(len(curves)), [len(curve.tokens) for curve in curves], axis=0)
    means = member / member.sum(axis=0)
    low, high = STEEPEST, FLATTEST
    for _ in range(_ROUNDS):
        grid = np.linspace(low, high, _STEPS)
        x = basis(grid[:, None], tokens)
        x -= x @ means @ member.T
        slope = x @ losses / (x**2).sum(axis=1)
        best = int(((losses - slope[:, None] * x) ** 2).sum(axis=1).argmin())
        low, high = grid[max(best - 1, 0)], grid[min(best + 1, _STEPS - 1)]
    exponent = float(grid[best])
    return TokenLaw(float(slope[best]) / exponent, -exponent)


def shift(curves: Sequence[Curve], before: float, after: float) -> tuple[float, float]:
    """The change of a run's loss from `before` to `after` millions of tokens.

    Returns:
        It, and half the width of its interval for a new run: by the fits that leave out a size
        each (the jackknife), as the points of one curve do not err apart from each other.
    """
    sizes = sorted({curve.size for curve in curves})
    found = [
        fit_tokens([curve for curve in curves if curve.size != size]).shift(before, after)
        for size in sizes
    ]
    number = len(sizes)
    # Of the mean it is (m − 1) / m times the sum of squares; a new run varies by m times that.
    variance = (number - 1) / number * float(np.square(np.subtract(found, np.mean(found))).sum())
    half = float(t_quantile(number - 1)) * np.sqrt(variance * (number + 1))
    return fit_tokens(curves).shift(before, after), float(half)
