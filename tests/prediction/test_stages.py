"""A law over a series, beside the same by steps of a token each."""

import numpy as np
import pytest

from teleflm.prediction.stages import (
    StageSize,
    best_growth,
    equivalent_tokens,
    stage_losses,
)
from teleflm.report.prediction import TokenLawFigures

LAW = TokenLawFigures(E=1.7, A=2.0, alpha=0.35, B=3.0, beta=0.3, source="ends")
SMALL, LARGE = StageSize(10.0, 400.0, 10.0), StageSize(80.0, 300.0, 80.0)


def test_a_grown_model_begins_with_its_parent_s_loss() -> None:
    small, large = stage_losses(LAW, [SMALL, LARGE])
    assert (small.begin, small.head_start) == (None, 0.0)
    assert small.end == LAW.at(10.0, 400.0) == large.begin
    assert LAW.at(80.0, large.head_start) == pytest.approx(small.end)
    # Fewer than its parent read, as a larger model needs fewer.
    assert 0 < large.head_start < 400.0
    assert large.end == LAW.at(80.0, large.head_start + 300.0) < small.end
    assert large.grow_after is None


def test_a_model_that_does_not_grow_is_one_from_scratch() -> None:
    same = StageSize(10.0, 250.0, 10.0)
    first, second = stage_losses(LAW, [SMALL, same])
    assert second.head_start == pytest.approx(400.0)
    assert second.end == pytest.approx(LAW.at(10.0, 650.0))
    assert first.grow_after == 0.0


def test_the_best_growth_leaves_the_lowest_loss_for_a_cost() -> None:
    """Over all shares of one budget, by trying them."""
    budget = 400 * 10.0 + 300 * 80.0

    def end(tokens: float) -> float:
        rest = (budget - tokens * SMALL.token_cost) / LARGE.token_cost
        head_start = equivalent_tokens(LAW, LARGE.parameters, LAW.at(SMALL.parameters, tokens))
        return LAW.at(LARGE.parameters, head_start + rest)

    tried = np.linspace(1.0, budget / SMALL.token_cost - 1, 20_001)
    best = tried[np.argmin([end(tokens) for tokens in tried])]
    assert best_growth(LAW, SMALL, LARGE) == pytest.approx(best, abs=2 * (tried[1] - tried[0]))
    assert stage_losses(LAW, [SMALL, LARGE])[0].grow_after == pytest.approx(best, abs=0.5)


def test_what_costs_no_more_is_better_at_once() -> None:
    assert best_growth(LAW, SMALL, StageSize(80.0, 300.0, 10.0)) == 0.0
    assert best_growth(LAW, SMALL, StageSize(80.0, 300.0, 9.0)) == 0.0
