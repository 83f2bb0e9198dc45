"""From the losses of some sizes to that of another one, with what speaks against it."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import numpy as np

from teleflm.config.resolve import read_json
from teleflm.errors import DataError
from teleflm.prediction.law import LEVEL, PARAMETERS, STEEPEST, Fits, fit
from teleflm.report.prediction import (
    LawFigures,
    LeftOutFigures,
    Place,
    PointFigures,
    PredictionRecord,
)

FEWEST, FEW = 5, 6
"""Sizes that a law takes at least, and below which it is weak."""
# Between the smallest size and the largest: with less an exponent is anything.
_SPAN = 2.0
# Points of the curve that is drawn.
_DRAWN = 49
# Of what a file has, so that its powers are finite.
_LARGEST = 1e15
FURTHEST = 20.0
"""Times the largest size that a law is believed at. An interval knows the noise, and no law that is
not quite one: where the loss falls by two powers that eight sizes do not tell from one, the
prediction is off by 0.8 % at 16 times and 1.1 % at 32, and nanoLM's own points are off by 1 % at 12
times and 1.6 % at 16 (`benchmarks/prediction.py --of distance`)."""


@dataclass(frozen=True)
class Point:
    """A run: its name (none in a points file), millions of parameters, and loss in nats a token."""

    name: str
    size: float
    loss: float


def read_points(path: Path) -> list[Point]:
    """The points of a file with `parameters_million` and `loss`, lists of one length.

    Raises:
        ConfigError: not readable as a JSON object.
        DataError: naming the key or the entry at fault.
    """
    data = read_json(path)
    columns = []
    for key in ("parameters_million", "loss"):
        column = data.get(key)
        if not isinstance(column, list):
            raise DataError(f"{path}: key {key!r} is to be a list of numbers; add it")
        for place, value in enumerate(column):
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not is_number or not 0 < value < _LARGEST:
                raise DataError(
                    f"{path}: {key}.{place} is {json.dumps(value)}, and no number above 0; a run "
                    "that diverged tells nothing of others, leave it out of both lists"
                )
        columns.append(column)
    sizes, losses = columns
    if len(sizes) != len(losses):
        raise DataError(
            f"{path}: {len(sizes)} parameters_million, but {len(losses)} losses; give a loss for "
            "each size"
        )
    return [Point("", float(size), float(loss)) for size, loss in zip(sizes, losses, strict=True)]


def predict(
    points: Sequence[Point], at: float, leave: int = 0, loss: str = "given"
) -> PredictionRecord:
    """Predict the loss of a size.

    Args:
        points: the runs; those of one size are replicates.
        at: millions of parameters.
        leave: so many of the largest sizes are kept out of the fit, and their errors reported. By
            0 nothing is, and the error is that at the largest size of a fit without it.
        loss: which one it is, for the record.

    Raises:
        DataError: too few sizes, a size too far from them, or a loss that does not fall with it.
    """
    sizes = sorted({point.size for point in points})
    kept = sizes[: max(len(sizes) - leave, 0)]
    _check_enough(len(kept), leave)
    _check_distance(at, kept[0], kept[-1])
    law = _fitted(points, kept)
    if law.a[0] <= 0:
        raise DataError(
            f"the loss does not fall from {kept[0]:g} M to {kept[-1]:g} M parameters, so it has no "
            "law; are the runs alike but for their size, and long enough?"
        )
    tested = law if leave else _fitted(points, sizes[:-1])
    left_out = tuple(_left_out(tested, points, size) for size in sizes[-max(leave, 1) :])
    figures = LawFigures(a=float(law.a[0]), b=float(law.b[0]), c=float(law.c[0]))
    low, high = law.interval(at)
    return PredictionRecord(
        law=figures,
        prediction=figures.at(at),
        interval=(float(low[0]), float(high[0])),
        level=LEVEL,
        relative_error_left_out=max(abs(each.relative_error) for each in left_out),
        noise=float(law.noise[0]),
        at=Place(parameters_million=at, model=None, tokens=None),
        loss=loss,
        tokens=None,
        vocab_size=None,
        token_law=None,
        points=tuple(
            PointFigures(
                name=point.name,
                parameters_million=point.size,
                loss=point.loss,
                fitted=figures.at(point.size),
                left_out=point.size not in kept,
            )
            for point in sorted(points, key=lambda point: point.size)
        ),
        left_out=left_out,
        curve=tuple(_curve(law, min(kept[0], at), max(sizes[-1], at))),
        warnings=tuple(_warnings(law, left_out)),
    )


def _fitted(points: Sequence[Point], sizes: Sequence[float]) -> Fits:
    chosen = [point for point in points if point.size in sizes]
    return fit([point.size for point in chosen], [point.loss for point in chosen])


def _check_enough(sizes: int, leave: int) -> None:
    left = f" (with {leave} left out)" if leave else ""
    if sizes < PARAMETERS:
        raise DataError(
            f"{sizes} sizes{left} are fewer than the {PARAMETERS} parameters of a·C^b + c; train "
            f"{FEW} or more sizes"
        )
    if sizes < FEWEST:
        raise DataError(
            f"{sizes} sizes{left} say too little: an exponent with an interval takes {FEWEST}, and "
            f"{FEW} are better; train more of them"
        )


def _check_distance(at: float, smallest: float, largest: float) -> None:
    if largest < _SPAN * smallest:
        raise DataError(
            f"the sizes, {smallest:g} M to {largest:g} M, are too near each other for a law; train "
            f"some that are {_SPAN:g} times as large, or 10 times"
        )
    if not isfinite(at) or at <= 0:
        raise DataError(f"--at {at:g}: give millions of parameters, above 0")
    if at > FURTHEST * largest:
        raise DataError(
            f"--at {at:g} M is {at / largest:.0f} times the largest size, {largest:g} M, and "
            f"beyond {FURTHEST:g} times an interval promises too much; train one of "
            f"{at / FURTHEST:.3g} M or more"
        )
    if at < smallest / FURTHEST:
        raise DataError(
            f"--at {at:g} M is less than one part in {FURTHEST:g} of the smallest size, "
            f"{smallest:g} M; train it, it costs little"
        )


def _left_out(law: Fits, points: Sequence[Point], size: float) -> LeftOutFigures:
    low, high = law.interval(size)
    return LeftOutFigures(
        parameters_million=size,
        loss=float(np.mean([point.loss for point in points if point.size == size])),
        prediction=float(law.at(size)[0]),
        interval=(float(low[0]), float(high[0])),
    )


def _curve(law: Fits, first: float, last: float) -> Iterator[tuple[float, float, float, float]]:
    for size in np.geomspace(first, last, _DRAWN):
        low, high = law.interval(size)
        yield float(size), float(law.at(size)[0]), float(low[0]), float(high[0])


def _warnings(law: Fits, left_out: Sequence[LeftOutFigures]) -> list[str]:
    found = []
    if len(law.sizes) < FEW:
        found.append(f"{len(law.sizes)} sizes make a weak law; {FEW} or more make a better one")
    if law.c[0] < 0:
        found.append("the law's floor is below 0: the sizes do not show one; larger ones would")
    if law.b[0] < STEEPEST * 0.99:
        found.append(
            "the loss falls more steeply than any law that is known; look whether the smallest "
            "sizes are sound"
        )
    for each in left_out:
        low, high = each.interval
        if not low <= each.loss <= high:
            found.append(
                f"the loss at {each.parameters_million:g} M, {each.loss:.4f}, lies outside of the "
                f"{LEVEL:.0%} interval that the smaller sizes give it, {low:.4f} to {high:.4f}; "
                "the law may not hold"
            )
    return found
