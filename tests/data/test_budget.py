import pytest

from teleflm.data.budget import readings
from teleflm.errors import DataError


def test_shares_tokens_and_epochs() -> None:
    found = readings({"a": 100, "b": 300, "c": 7}, {"a": 200.0, "b": 300.0, "c": 0.0}, 1000)
    assert [(r.share, r.read, r.epochs) for r in found.values()] == [
        (0.4, pytest.approx(400), pytest.approx(4)),
        (0.6, pytest.approx(600), pytest.approx(2)),
        (0, 0, 0),
    ]
    # Weights of tokens × epochs: after their sum each was read that often.
    found = readings({"a": 100, "b": 300}, {"a": 100 * 2.5, "b": 300 * 0.5}, 400)
    assert [r.epochs for r in found.values()] == pytest.approx([2.5, 0.5])


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"a": 1, "b": 1, "x": 1}, "no domain 'x' to have a weight; there are 'a', 'b'"),
        ({"a": 1}, "domain 'b' has no weight where others have one"),
        ({"a": 0, "b": 0}, "no domain has a weight above 0"),
        ({"a": 1, "b": 1}, "domain 'b' has a weight and no tokens"),
    ],
)
def test_bad_weights(weights: dict[str, float], message: str) -> None:
    with pytest.raises(DataError, match=message):
        readings({"a": 5, "b": 0}, weights, 10)
