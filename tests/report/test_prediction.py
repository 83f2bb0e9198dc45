"""The page of a prediction: what it says and shows, and that its record can be read again."""

from pathlib import Path

import numpy as np
import pytest

from teleflm.errors import DataError
from teleflm.prediction.predict import Point, predict
from teleflm.report.prediction import PredictionRecord, read_prediction, write_prediction
from tests.report.page import read_page

SIZES = [8.53, 21.56, 39.09, 61.12, 87.65, 118.68, 154.21, 194.24]


@pytest.fixture
def found() -> PredictionRecord:
    noise = 0.007 * np.random.default_rng(3).standard_normal(len(SIZES))
    losses = 2.469 * np.array(SIZES) ** -0.4231 + 2.9233 + noise
    points = [Point(f"runs/<{s}>", s, loss) for s, loss in zip(SIZES, losses, strict=True)]
    return predict(points, 1000.0, leave=2)


def test_the_page(found: PredictionRecord, tmp_path: Path) -> None:
    found = found.model_copy(update={"warnings": ("one & all",)})
    page = read_page(write_prediction(tmp_path / "page.html", found))
    for text in (
        "The loss of 1 B parameters",
        f"{found.prediction:.4f} nats a token",
        f"{found.interval[0]:.4f} – {found.interval[1]:.4f}",
        f"+ {found.law.c:.4f}",
        "runs/<8.53>",
        f"{found.points[0].residual:+.4f}",
        "194.24 (left out)",
        "Warning: one & all.",
    ):
        assert text in page.text, text
    fit, residuals = page.images
    assert fit is not None and f"The prediction is {found.prediction:.3f}" in fit
    assert residuals is not None and f"{found.noise:.4f}" in residuals


def test_a_record_is_read_again(found: PredictionRecord, tmp_path: Path) -> None:
    path = tmp_path / "law.json"
    path.write_text(found.model_dump_json())
    assert read_prediction(path) == found
    path.write_text('{"law": {"a": 1}}')
    with pytest.raises(DataError, match=r"law\.json: damaged \(law\.b"):
        read_prediction(path)
    with pytest.raises(DataError, match="no such file; teleflm predict with --json"):
        read_prediction(tmp_path / "none.json")
