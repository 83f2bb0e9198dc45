"""Clusters, their shares, and who of a cluster is kept."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from teleflm.selection.clusters import directions, find_clusters, pick, shares


@given(st.lists(st.integers(0, 60), min_size=1, max_size=30), st.data())
def test_shares(sizes: list[int], data: st.DataObject) -> None:
    sizes = sorted(sizes, reverse=True)
    keep = data.draw(st.integers(0, sum(sizes)))
    given_ = shares(sizes, keep)
    assert sum(given_) == keep
    assert all(0 <= seats <= size for seats, size in zip(given_, sizes, strict=True))
    there = sum(size > 0 for size in sizes)
    if keep >= there:  # all that have members have a seat
        assert sum(seats > 0 for seats in given_) == there
    else:
        assert given_[:keep] == [1] * keep
    # A larger cluster has no fewer.
    assert given_ == sorted(given_, reverse=True)


def test_rest_goes_by_the_root_of_the_size() -> None:
    assert shares([10_000, 2500, 400, 100, 4], 185) == pytest.approx([100, 50, 20, 10, 4], abs=2)


def test_directions_tell_apart_what_a_wide_dim_hides() -> None:
    draw = np.random.default_rng(0)
    vectors = draw.normal(size=(200, 8)).astype(np.float32) + 50
    vectors[:, 3] = 1e4 * draw.normal(size=200)
    vectors[100:, 5] += 20
    vectors[:, 6] = 7  # says nothing
    found = directions(vectors)
    assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(200), rel=1e-5)
    assert (found[:, 6] == 0).all()
    assert (find_clusters(found, 4, 0)[:100] != find_clusters(found, 4, 0)[100:]).mean() > 0.95
    assert not directions(np.ones((3, 4), np.float32)).any()


def test_clusters_find_a_rare_kind_and_are_numbered_by_size() -> None:
    draw = np.random.default_rng(1)
    centres = np.eye(12)
    kinds = np.repeat(np.arange(12), [400, 200, 100, 50, 50, 50, 40, 30, 30, 30, 16, 4])
    vectors = directions((centres[kinds] + 0.05 * draw.normal(size=(1000, 12))).astype(np.float32))
    found = find_clusters(vectors, 100, seed=3)
    assert found.max() + 1 == 50
    sizes = np.bincount(found)
    assert (sizes[:-1] >= sizes[1:]).all() and sizes[-1] > 0
    rare = found[kinds == 11]
    assert not np.isin(found[kinds != 11], rare).any()
    np.testing.assert_array_equal(found, find_clusters(vectors, 100, seed=3))
    assert (found != find_clusters(vectors, 100, seed=4)).any()
    # Few are kept of many: still the root of the number, and ten members in the mean.
    assert find_clusters(vectors, 1, 0).max() + 1 == 32
    assert find_clusters(vectors[:30], 30, 0).max() + 1 == 3
    assert find_clusters(vectors[:3], 3, 0).max() + 1 == 1


def test_pick() -> None:
    vectors = np.array([[0, 0], [0, 0.1], [3, 0], [9, 9], [1, 0], [3, 0], [0, 0], [0, 0]], "f4")
    quality = np.array([5.0, 5, 4, -9, 3, 4, -8, 5])
    # The best, the earlier of equals; far from it; then far from both. 3 is the worst, and is not
    # of the better three quarters.
    assert pick(vectors, quality, 3).tolist() == [0, 2, 4]
    assert sorted(pick(vectors, quality, 8).tolist()) == list(range(8))
    assert pick(vectors, quality, 7).tolist() == [0, 2, 4, 1, 7, 5, 6]
