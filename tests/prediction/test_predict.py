"""Points to a prediction: nanoLM's example, errors of what is left out, and refusals."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from teleflm.errors import ConfigError, DataError
from teleflm.prediction.predict import FURTHEST, Point, predict, read_points

# The ten points of nanoLM's example, where they are at hand.
NANOLM = Path(__file__).parents[3] / "shared" / "nanolm.json"
SIZES = [8.53, 21.56, 39.09, 61.12, 87.65, 118.68, 154.21, 194.24, 676.48, 1446.72]
# What the seven smallest say of the three largest.
EXPECTED = {194.24: 3.1890, 676.48: 3.0800, 1446.72: 3.0369}


def law(size: float) -> float:
    return 2.469 * size**-0.4231 + 2.9233


def points_of(sizes: list[float] = SIZES, noise: float = 0.0, seed: int = 0) -> list[Point]:
    random = np.random.default_rng(seed)
    return [Point("", size, law(size) + noise * random.standard_normal()) for size in sizes]


def test_the_published_curve() -> None:
    """Where its points are not at hand, those of its law, with the measured noise."""
    points, exact = (read_points(NANOLM), True) if NANOLM.exists() else (points_of(), False)
    found = predict(points, 1446.72, leave=3)
    assert found.law.a == pytest.approx(2.469, abs=5e-4)
    assert found.law.b == pytest.approx(-0.4231, abs=5e-5)
    assert found.law.c == pytest.approx(2.9233, abs=5e-5)
    for each in found.left_out:
        assert each.prediction == pytest.approx(EXPECTED[each.parameters_million], abs=6e-5)
    assert found.prediction == found.left_out[-1].prediction
    if exact:
        assert found.relative_error_left_out == pytest.approx(0.0029, abs=1e-4)
        assert all(low <= e.loss <= high for e in found.left_out for low, high in [e.interval])


def test_with_noise_it_is_near() -> None:
    found = predict(points_of(noise=0.007), 1446.72, leave=3)
    for each in found.left_out:
        assert each.prediction == pytest.approx(EXPECTED[each.parameters_million], rel=0.02)
        assert abs(each.relative_error) <= found.relative_error_left_out < 0.02


def test_the_error_is_that_of_a_fit_without_the_largest() -> None:
    """Which the loss of the largest does not touch; what is predicted follows from all."""
    points = points_of(SIZES[:8], noise=0.007)
    off = [*points[:-1], Point("", points[-1].size, points[-1].loss * 1.02)]
    one, other = predict(points, 400.0), predict(off, 400.0)
    assert one.left_out[0].prediction == other.left_out[0].prediction
    assert one.prediction != other.prediction
    assert other.relative_error_left_out == pytest.approx(
        abs(one.left_out[0].prediction / off[-1].loss - 1)
    )
    (warning,) = other.warnings
    assert "lies outside" in warning


def test_runs_of_one_size_are_replicates() -> None:
    twice = points_of(SIZES[:8], 0.007) + points_of(SIZES[:8], 0.007, seed=1)
    found = predict(twice, 400.0)
    assert len(found.points) == 16 and len(found.left_out) == 1
    largest = [point.loss for point in twice if point.size == SIZES[7]]
    assert found.left_out[0].loss == pytest.approx(np.mean(largest))
    # All runs of the largest size are left out of its prediction.
    once = predict(twice, 400.0, leave=1)
    assert [point.left_out for point in once.points].count(True) == 2


def test_five_sizes_are_weak() -> None:
    assert predict(points_of(SIZES[:6]), 200.0).warnings == ()
    (warning,) = predict(points_of(SIZES[:5]), 200.0).warnings
    assert warning.startswith("5 sizes make a weak law")


@pytest.mark.parametrize(
    ("points", "at", "leave", "message"),
    [
        (points_of(SIZES[:2]), 100, 0, "2 sizes are fewer than the 3 parameters"),
        (points_of(SIZES[:4]), 100, 0, "4 sizes say too little"),
        (points_of(SIZES[:4] * 3), 100, 0, "4 sizes say too little"),
        (points_of(SIZES[:8]), 100, 4, r"4 sizes \(with 4 left out\) say too little"),
        (points_of(SIZES[:8]), 100, 99, r"0 sizes \(with 99 left out\) are fewer"),
        (points_of(SIZES[:8]), FURTHEST * 195, 0, "20 times the largest size.* train one of 195 M"),
        (points_of(SIZES[:8]), 0.4, 0, "less than one part in 20 of the smallest size, 8.53 M"),
        (points_of([8.0, 8.1, 8.2, 8.3, 15.9]), 9, 0, "8 M to 15.9 M, are too near each other"),
        (points_of(SIZES[:8]), -1, 0, "--at -1: give millions"),
        (points_of(SIZES[:8]), float("nan"), 0, "--at nan: give millions"),
        ([Point("", s, 3.0) for s in SIZES], 100, 0, "does not fall from 8.53 M to 1446.72 M"),
        ([Point("", s, 6 - law(s)) for s in SIZES], 100, 0, "does not fall"),
    ],
)  # fmt: skip
def test_refusals(points: list[Point], at: float, leave: int, message: str) -> None:
    with pytest.raises(DataError, match=message):
        predict(points, at, leave)


def test_a_logarithm_has_no_floor() -> None:
    points = [Point("", size, 5.0 - 0.3 * np.log(size)) for size in SIZES]
    assert any("floor is below 0" in warning for warning in predict(points, 2000.0).warnings)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1, 2]", "expected a JSON object"),
        ("{", "not readable as JSON"),
        ({"loss": [1.0]}, "key 'parameters_million' is to be a list"),
        ({"parameters_million": [1.0], "loss": 3.0}, "key 'loss' is to be a list"),
        ({"parameters_million": [1.0, 2.0], "loss": [3.0]}, "2 parameters_million, but 1 losses"),
        ({"parameters_million": [1.0, 0], "loss": [3.0, 2]}, r"parameters_million\.1 is 0,"),
        ({"parameters_million": [1.0], "loss": [float("nan")]}, r"loss\.0 is NaN,.*diverged"),
        ({"parameters_million": [1.0], "loss": [None]}, r"loss\.0 is null"),
        ({"parameters_million": [1.0], "loss": ["3"]}, r"loss\.0 is \"3\""),
        ({"parameters_million": [10**400], "loss": [3.0]}, r"parameters_million\.0 is 1000"),
        ({"parameters_million": [True], "loss": [3.0]}, r"parameters_million\.0 is true"),
    ],
)
def test_bad_points_are_named(tmp_path: Path, content: Any, message: str) -> None:
    path = tmp_path / "points.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises((ConfigError, DataError), match=message):
        read_points(path)
