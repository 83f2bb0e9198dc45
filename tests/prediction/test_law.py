"""The law: by exact points, by its own definition, and its interval by how often it is right."""

import numpy as np
import pytest

from teleflm.prediction.law import LEVEL, PARAMETERS, Array, basis, fit, t_quantile

# Those of nanoLM's example, and its law.
SIZES = np.array([8.53, 21.56, 39.09, 61.12, 87.65, 118.68, 154.21, 194.24])
A, B, C = 2.469, -0.4231, 2.9233
DRAWS = 1000
NORMAL = 1.6449


def law(sizes: Array | float) -> Array:
    return np.asarray(A * sizes**B + C)


def test_points_of_a_law_give_it_back() -> None:
    found = fit(SIZES, law(SIZES))
    assert found.a == pytest.approx([A], rel=1e-4)
    assert found.b == pytest.approx([B], rel=1e-4)
    assert found.c == pytest.approx([C], rel=1e-5)
    low, high = found.interval(1000.0)
    assert [*low, *high] == pytest.approx([float(law(1000.0))] * 2, rel=1e-5)


@pytest.mark.parametrize(
    ("degrees", "expected"),
    [(1, 6.3138), (2, 2.92), (5, 2.015), (21, 1.7207), (1000, 1.6464)],
)
def test_students_t(degrees: int, expected: float) -> None:
    assert t_quantile(degrees) == pytest.approx(expected, abs=2e-4)


def test_b_has_the_least_squares() -> None:
    losses = law(SIZES) + 0.01 * np.random.default_rng(1).standard_normal(len(SIZES))
    found = fit(SIZES, losses)
    exponents = np.linspace(-1, -0.1, 9001)
    squares = [_squares(SIZES, losses, b) for b in exponents]
    assert found.b[0] == pytest.approx(exponents[np.argmin(squares)], abs=1e-4)
    assert found.noise[0] ** 2 == pytest.approx(min(squares) / (8 - PARAMETERS), rel=1e-6)


def _squares(sizes: Array, losses: Array, b: float) -> float:
    columns = np.stack([np.ones_like(sizes), basis(b, sizes)], axis=1)
    return float(((losses - columns @ np.linalg.lstsq(columns, losses)[0]) ** 2).sum())


def test_a_new_run_at_an_end_of_the_interval_costs_t_squared() -> None:
    """The definition: fitted with the new run as well, the squares grow by t² · noise²."""
    losses = law(SIZES) + 0.01 * np.random.default_rng(2).standard_normal(len(SIZES))
    found = fit(SIZES, losses)
    least = found.noise[0] ** 2 * (8 - PARAMETERS)
    for end in found.interval(1000.0):
        sizes, both = np.append(SIZES, 1000.0), np.append(losses, end)
        with_it = min(_squares(sizes, both, b) for b in np.linspace(-1, -0.01, 3001))
        grown = (with_it - least) / found.noise[0] ** 2
        assert grown == pytest.approx(t_quantile(5) ** 2, rel=1e-3)


@pytest.mark.parametrize("noise", [0.001, 0.007, 0.03])
@pytest.mark.parametrize("times", [2.0, 7.4])
def test_the_interval_holds_new_runs_as_often_as_it_says(times: float, noise: float) -> None:
    covered, width = _covered(SIZES, times, noise)
    assert 0.85 <= covered <= 0.95
    # Of one that knows the law.
    assert width <= 3 * 2 * NORMAL * noise


@pytest.mark.parametrize("sizes", [np.geomspace(8, 200, 5), np.geomspace(1, 200, 8)])
def test_and_from_other_sizes(sizes: Array) -> None:
    assert 0.85 <= _covered(sizes, 5.0, 0.01)[0] <= 0.95


def test_seeds_are_replicates() -> None:
    """They narrow the interval, which stays right."""
    covered, width = _covered(np.repeat(SIZES, 3), 7.4, 0.01)
    assert 0.85 <= covered <= 0.95
    assert width < 0.8 * _covered(SIZES, 7.4, 0.01)[1]


def test_seeds_do_not_hide_that_the_law_is_off() -> None:
    """Each size has its own deviation, which seeds of it share, and which is larger than they."""
    covered, _ = _covered(np.repeat(SIZES, 3), 7.4, 0.002, of_sizes=0.01)
    assert 0.85 <= covered <= 0.95


def _covered(
    sizes: Array, times: float, noise: float, of_sizes: float = 0.0
) -> tuple[float, float]:
    """How often a new run lies in its interval, and the median width of that."""
    random = np.random.default_rng(0)
    distinct, place = np.unique(sizes, return_inverse=True)
    at = times * sizes.max()
    own = of_sizes * random.standard_normal((DRAWS, len(distinct)))[:, place]
    losses = law(sizes) + own + noise * random.standard_normal((DRAWS, len(sizes)))
    new = law(at) + np.hypot(noise, of_sizes) * random.standard_normal(DRAWS)
    low, high = fit(sizes, losses).interval(at)
    assert LEVEL == 0.9
    return float(((low <= new) & (new <= high)).mean()), float(np.median(high - low))
