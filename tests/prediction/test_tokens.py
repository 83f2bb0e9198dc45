"""What more tokens do: found again, and its interval by how often it is right."""

import numpy as np
import pytest

from teleflm.prediction.law import Array
from teleflm.prediction.tokens import Curve, fit_tokens, shift

B, BETA = 0.4, 0.35
TOKENS = np.geomspace(0.1, 1.0, 12)
SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)


def curve(size: float, factor: float = 1.0, noise: Array | float = 0.0) -> Curve:
    level = 2.0 + size**-0.3
    return Curve(size, TOKENS, level + factor * B * TOKENS**-BETA + noise)


def test_each_curve_has_a_level_of_its_own() -> None:
    """Their number of points is their own too."""
    curves = [curve(size) for size in SIZES]
    curves[2] = Curve(4.0, TOKENS[3:], curves[2].losses[3:] + 0.5)
    law = fit_tokens(curves)
    assert (law.B, law.beta) == pytest.approx((B, BETA), rel=1e-4)
    change, half = shift(curves, 1.0, 2.0)
    assert change == pytest.approx(B * (2**-BETA - 1), rel=1e-5)
    assert half == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(("beta", "at_edge"), [(BETA, False), (2.5, True), (0.001, True)])
def test_a_law_at_the_edge_of_those_searched_is_told(beta: float, at_edge: bool) -> None:
    curves = [Curve(size, TOKENS, 2.0 + 0.1 * TOKENS**-beta) for size in SIZES]
    assert fit_tokens(curves).is_at_edge is at_edge


def test_the_interval_holds_new_runs() -> None:
    """Runs whose tokens do more or less than others', with noise along their curves."""
    random = np.random.default_rng(0)
    held = []
    for _ in range(150):
        factors = 1 + 0.05 * random.standard_normal(len(SIZES) + 1)
        noise = 0.002 * random.standard_normal((len(SIZES), len(TOKENS)))
        curves = [curve(s, f, e) for s, f, e in zip(SIZES, factors[:-1], noise, strict=True)]
        change, half = shift(curves, 1.0, 2.0)
        held.append(abs(factors[-1] * B * (2**-BETA - 1) - change) <= half)
    assert 0.83 <= np.mean(held) <= 0.97
