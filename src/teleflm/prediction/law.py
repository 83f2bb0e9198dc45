"""L = a·C^b + c, the loss by size C at a fixed step (nanoLM, arXiv 2304.06875), and how sure it is.

For each exponent b, a and c are a linear regression on (C^b − 1) / b, so that the fit is a search
over b alone (variable projection). The interval is that of the profile likelihood: a new run of
loss y belongs to it where the law that is fitted to it as well makes the sum of squares larger by
no more than t² times the noise's variance. For each b that is a linear regression's interval for a
new observation, so the whole is their union over b. It has the coverage that it says where the
noise is normal; a percentile bootstrap of eight points and three parameters does not
(`benchmarks/prediction.py`).
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

LEVEL = 0.90
"""What share of new runs an interval is to hold."""
PARAMETERS = 3
"""Of the law: as many distinct sizes it takes at least, and one more for an interval."""
STEEPEST, FLATTEST = -3.0, -0.01
"""The exponents that are searched. Towards 0 the law becomes a + c·log(C), which has no floor."""

_STEPS = 65
_ROUNDS = 6


def t_quantile(degrees: ArrayLike) -> Array:
    """How many standard errors hold the share `LEVEL` on both sides, by Student's t.

    Args:
        degrees: of freedom, each at least 1.
    """
    # With t = √ν·tan θ the density is cos^(ν−1) θ, which is finite everywhere.
    angles = np.linspace(0.0, np.pi / 2, 20_001)
    found = []
    for freedom in np.ravel(degrees):
        density = np.cos(angles) ** (freedom - 1)
        share = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
        angle = np.interp(LEVEL, share / share[-1], angles)
        found.append(np.sqrt(freedom) * np.tan(angle))
    return np.array(found).reshape(np.shape(degrees))


@dataclass(frozen=True)
class _Regression:
    """The linear regressions of some exponents; arrays are (draws, exponents).

    Attributes:
        squares: the weighted sum of squared residuals.
        slope: by the basis (C^b − 1) / b, of which `centre` is the mean and `spread` the weighted
            sum of squares around it.
    """

    squares: Array
    slope: Array
    centre: Array
    spread: Array


def basis(exponents: Array | float, sizes: Array | float) -> Array:
    """(C^b − 1) / b, which stays well-behaved where b is near 0."""
    return np.expm1(exponents * np.log(sizes)) / exponents


@dataclass(frozen=True)
class Fits:
    """The law, fitted to each of several draws of the losses of the same runs.

    Attributes:
        sizes: (m,), distinct and rising.
        counts: (m,), runs of each; runs of one size are replicates.
        means: (draws, m), of each size's losses.
        within: (draws,), the sum of squares of the losses around their size's mean.
    """

    sizes: Array
    counts: Array
    means: Array
    within: Array

    @cached_property
    def b(self) -> Array:
        """(draws,), the exponent of each."""
        draws = len(self.means)
        low, high = np.full(draws, STEEPEST), np.full(draws, FLATTEST)
        rows = np.arange(draws)
        for _ in range(_ROUNDS):
            grid = _between(low, high)
            best = self._regress(grid).squares.argmin(axis=1)
            low = grid[rows, np.maximum(best - 1, 0)]
            high = grid[rows, np.minimum(best + 1, _STEPS - 1)]
        return grid[rows, best]

    @cached_property
    def a(self) -> Array:
        """(draws,), the factor."""
        return self._best.slope[:, 0] / self.b

    @cached_property
    def c(self) -> Array:
        """(draws,), the loss that no size gets below."""
        centre = (self.sizes ** self.b[:, None]) @ self._weights
        return self.means @ self._weights - self.a * centre

    @property
    def _weights(self) -> Array:
        return self.counts / self.counts.sum()

    @cached_property
    def _best(self) -> _Regression:
        return self._regress(self.b[:, None])

    @cached_property
    def _noise(self) -> tuple[Array, Array]:
        """The variance of a run around the law, and t² for it.

        By all runs, or by the means of sizes where these are off by more than their runs differ
        among each other: then it is the law that is off, and seeds do not tell by how much.
        """
        runs, squares = self.counts.sum(), self._best.squares[:, 0]
        if runs == len(self.sizes):
            t = t_quantile(runs - PARAMETERS)
            return squares / (runs - PARAMETERS), np.full_like(squares, t**2)
        freedom = np.array([runs - PARAMETERS, len(self.sizes) - PARAMETERS])
        variances = np.stack([(squares + self.within) / freedom[0], squares / freedom[1]])
        larger = variances.argmax(axis=0)
        return variances.max(axis=0), t_quantile(freedom)[larger] ** 2

    @property
    def noise(self) -> Array:
        """(draws,), the standard deviation of a run around the law, in nats."""
        return np.sqrt(self._noise[0])

    def at(self, size: Array | float) -> Array:
        """The law at `size`, of one draw each."""
        return self.a * size**self.b + self.c

    def interval(self, size: float) -> tuple[Array, Array]:
        """Where the loss of a new run of `size` lies, with a share of `LEVEL`.

        Returns:
            Its ends, (draws,) each.
        """
        variance, t_squared = self._noise
        limit = (self._best.squares[:, 0] + t_squared * variance)[:, None]
        ends = [self._outermost(limit, side) for side in (STEEPEST, FLATTEST)]
        grid = np.concatenate([_between(ends[0], self.b), _between(self.b, ends[1])], axis=1)
        found = self._regress(grid)
        distance = basis(grid, size) - found.centre
        value = (self.means @ self._weights)[:, None] + found.slope * distance
        leverage = 1 / self.counts.sum() + distance**2 / found.spread
        # Rounding may put the best exponent itself a hair beyond the limit.
        half = np.sqrt((1 + leverage) * np.maximum(limit - found.squares, 0.0))
        return (value - half).min(axis=1), (value + half).max(axis=1)

    def _outermost(self, limit: Array, side: float) -> Array:
        """(draws,), the exponent furthest to that side whose squares are within the limit."""
        outer, inner = np.full(len(limit), side), self.b
        rows = np.arange(len(limit))
        for _ in range(_ROUNDS):
            grid = _between(outer, inner)
            allowed = self._regress(grid).squares <= limit
            allowed[:, -1] = True
            first = allowed.argmax(axis=1)
            outer, inner = grid[rows, np.maximum(first - 1, 0)], grid[rows, first]
        return inner

    def _regress(self, exponents: Array) -> _Regression:
        x = basis(exponents[..., None], self.sizes)
        centre = x @ self._weights
        x -= centre[..., None]
        y = (self.means - (self.means @ self._weights)[:, None])[:, None]
        spread = x**2 @ self.counts
        slope = (x * y) @ self.counts / spread
        squares = (y - slope[..., None] * x) ** 2 @ self.counts
        return _Regression(squares, slope, centre, spread)


def fit(sizes: ArrayLike, losses: ArrayLike) -> Fits:
    """Fit the law.

    Args:
        sizes: (runs,), in any unit, which is that of the law then; equal ones are replicates. At
            least `PARAMETERS` + 1 are distinct.
        losses: (draws, runs) or (runs,), in nats a token.
    """
    losses = np.atleast_2d(np.asarray(losses, np.float64))
    distinct, place = np.unique(np.asarray(sizes, np.float64), return_inverse=True)
    member = np.eye(len(distinct))[place.ravel()]
    counts = member.sum(axis=0)
    means = losses @ member / counts
    within = ((losses - means @ member.T) ** 2).sum(axis=1)
    return Fits(distinct, counts, means, within)


def _between(low: Array, high: Array) -> Array:
    """(draws, _STEPS) from each low end to its high one."""
    return low[:, None] + (high - low)[:, None] * np.linspace(0.0, 1.0, _STEPS)
