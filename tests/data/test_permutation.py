import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from teleflm.data.permutation import derive_key, permute


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 3000), st.integers(0, 2**70))
def test_it_is_a_permutation(size: int, seed: int) -> None:
    order = permute(np.arange(size), size, derive_key(seed))
    assert np.array_equal(np.sort(order), np.arange(size))


def test_any_place_alone_is_the_same() -> None:
    key = derive_key("windows", 1, "en", 0)
    order = permute(np.arange(1000), 1000, key)
    assert [permute(np.array([i]), 1000, key)[0] for i in range(0, 1000, 37)] == list(order[::37])


def test_huge_sizes_need_no_table() -> None:
    size = 10**12 + 39
    places = np.arange(size - 10_000, size)
    values = permute(places, size, derive_key(0))
    assert values.min() >= 0
    assert values.max() < size
    assert np.unique(values).size == places.size


def test_it_looks_random() -> None:
    """First places are spread evenly, neighbours are far apart, and keys differ."""
    size, first = 100_003, 10_000
    values = permute(np.arange(first), size, derive_key(7))
    counts = np.histogram(values, bins=20, range=(0, size))[0]
    assert (((counts - first / 20) ** 2) / (first / 20)).sum() < 45
    assert np.abs(np.diff(values)).mean() == pytest.approx(size / 3, rel=0.03)
    assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 0.05
    assert (values == permute(np.arange(first), size, derive_key(8))).mean() < 0.01


def test_the_order_never_changes() -> None:
    """A change of these numbers would change the data order of every run that is resumed."""
    order = permute(np.arange(8), 1000, derive_key("windows", 1, "en", 0))
    assert order.tolist() == [847, 133, 634, 594, 506, 150, 959, 10]
