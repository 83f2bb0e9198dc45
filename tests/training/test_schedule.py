"""The learning rate's share at each step."""

import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teleflm.config.run import ScheduleConfig
from teleflm.training.schedule import rate_factor


def factors(steps: int, **fields: Any) -> list[float]:
    schedule = ScheduleConfig(**fields)
    return [rate_factor(schedule, step, steps) for step in range(steps)]


def test_cosine() -> None:
    found = factors(100, warmup_steps=10, min_ratio=0.1)
    assert found[:10] == [(i + 1) / 10 for i in range(10)], "the first update moves something"
    assert found[9] == found[10] == 1.0
    assert found[55] == pytest.approx(0.55), "half-way between peak and minimum"
    assert found[-1] == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi * 89 / 90)) / 2)


def test_wsd() -> None:
    found = factors(100, kind="wsd", warmup_steps=10, min_ratio=0.1, decay_fraction=0.2)
    assert found[10:80] == [1.0] * 70
    assert found[80:] == pytest.approx([1 - 0.9 * (i + 1) / 20 for i in range(20)])
    assert found[-1] == pytest.approx(0.1)


def test_linear() -> None:
    found = factors(110, kind="linear", warmup_steps=9, min_ratio=0.1)
    assert found[8] == found[9] == 1.0
    assert found[9:] == pytest.approx([1 - 0.9 * i / 100 for i in range(101)])
    # Tele-FLM's instruct model fell from 2.7e-5 to 1e-9 (arXiv 2407.02783).
    ends = factors(500, kind="linear", warmup_steps=0, min_ratio=1e-9 / 2.7e-5)
    assert 2.7e-5 * ends[0] == 2.7e-5
    assert 2.7e-5 * ends[-1] == pytest.approx(1e-9)


def test_a_decay_laid_out_on_more_steps_than_the_run_s() -> None:
    whole = factors(100, warmup_steps=5)
    assert factors(30, warmup_steps=5, total_steps=100) == whole[:30]
    longer = factors(120, warmup_steps=5, total_steps=100, min_ratio=0.2)
    assert longer[100:] == pytest.approx([0.2] * 20), "past its end it stays at the minimum"


@pytest.mark.parametrize("kind", ["cosine", "wsd", "linear"])
def test_a_warmup_longer_than_the_run_is_clamped(kind: str) -> None:
    assert factors(4, kind=kind, warmup_steps=2000) == [0.25, 0.5, 0.75, 1.0]
    assert factors(1, kind=kind, warmup_steps=2000) == [1.0]


@given(
    st.sampled_from(["cosine", "wsd", "linear"]),
    st.integers(1, 60),
    st.integers(0, 80),
    st.one_of(st.just(0.0), st.floats(1e-9, 1)),
    st.one_of(st.none(), st.integers(1, 90)),
    st.floats(0, 1),
)
def test_it_rises_then_falls_within_bounds(
    kind: str, steps: int, warmup: int, low: float, total: int | None, decay: float
) -> None:
    found = factors(
        steps,
        kind=kind,
        warmup_steps=warmup,
        min_ratio=low,
        total_steps=total,
        decay_fraction=decay,
    )
    assert all(0 < factor <= 1 + 1e-12 for factor in found) or low == 0
    top = min(warmup, total or steps)
    rising, falling = found[:top], found[top:]
    assert all(a < b for a, b in pairwise(rising))
    assert all(a >= b - 1e-12 for a, b in pairwise(falling))
    assert all(factor >= low - 1e-12 for factor in falling)
