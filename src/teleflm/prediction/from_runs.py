"""The loss of a model that was not trained, from runs that were."""

from collections.abc import Sequence
from math import hypot, isfinite, log

import numpy as np

from teleflm.errors import DataError
from teleflm.model.axes import parameter_count
from teleflm.prediction.alike import check_alike, common_kind, target
from teleflm.prediction.predict import FEWEST, Point, predict
from teleflm.prediction.runs import MILLION, FinishedRun, Kind
from teleflm.prediction.tokens import Curve, fit_tokens, shift
from teleflm.report.prediction import (
    FALLING,
    FALLS,
    LawFigures,
    Place,
    PredictionRecord,
    TokenLawFigures,
)

EDGE = (
    "the losses fall with tokens more steeply or less than any law that is searched, so what more "
    "of them do is hardly known; runs of longer and of more lengths would tell"
)
_FEWEST_POINTS = 5
# Of lengths that tell a power with a level, and of sizes that have so many.
_FEWEST_LENGTHS = 3
LONGEST = 4.0
"""Times the runs' tokens, or one part in as many, that a prediction goes to."""


def predict_from_runs(
    runs: Sequence[FinishedRun], at: str, tokens: float | None = None, leave: int = 0
) -> PredictionRecord:
    """Predict the loss of a model.

    Args:
        runs: alike but for size and seed; with `tokens` for length too.
        at: MODEL.
        tokens: that it reads, as many as the runs where None. What they do is read off the ends of
            runs of several lengths, or else off the curves of runs of one.
        leave: see `predict`.

    Raises:
        DataError: see `check_alike`, `target` and `predict`; or tokens too far from the runs'.
        ConfigError: no such MODEL.
    """
    if tokens is not None and not isfinite(tokens):
        raise DataError(f"--tokens {tokens}: give how many")
    by_length = tokens is not None and len({run.manifest.tokens for run in runs}) > 1
    told = check_alike(runs, of_one_length=not by_length)
    model, differences = target(at, runs)
    kind, group = common_kind(runs), runs
    if by_length and tokens is not None:
        group = _nearest(runs, tokens)
    read = group[0].manifest.tokens
    source, curves = _ends(runs, kind) if by_length else _curves(runs, kind)
    if curves and fit_tokens(curves).B <= 0:
        curves = []
    points = [Point(str(run.path), run.size, run.loss(kind)) for run in group]
    record = predict(points, parameter_count(model) / MILLION, leave, kind)
    record = record.model_copy(
        update={
            "at": Place(
                parameters_million=record.at.parameters_million,
                model=at,
                tokens=float(read),
            ),
            "tokens": float(read),
            "vocab_size": model.vocab_size,
            "token_law": _token_law(record.law, source, curves, read),
            "warnings": (*told, *differences, *record.warnings),
        }
    )
    if tokens is None or round(tokens) == read:
        return record
    if not curves:
        raise DataError(
            f"--tokens {tokens:,.0f}: the runs say too little of what tokens do; it takes "
            f"{_FEWEST_LENGTHS} sizes with runs of {_FEWEST_LENGTHS} lengths each, or runs of one "
            f"length with {_FEWEST_POINTS} losses or more behind the warm-up"
        )
    return _shifted(record, curves, tokens)


def _nearest(runs: Sequence[FinishedRun], tokens: float) -> list[FinishedRun]:
    """The runs of the length that is nearest to so many tokens, of those that many sizes have."""
    sizes: dict[int, set[float]] = {}
    for run in runs:
        sizes.setdefault(run.manifest.tokens, set()).add(run.size)
    enough = [length for length, found in sizes.items() if len(found) >= FEWEST]
    if not enough:
        raise DataError(
            f"no length has {FEWEST} sizes or more, of which one is to have them: "
            + ", ".join(f"{length:,} tokens {len(found)}" for length, found in sizes.items())
        )
    chosen = min(enough, key=lambda length: abs(log(length / tokens)))
    return [run for run in runs if run.manifest.tokens == chosen]


def _ends(runs: Sequence[FinishedRun], kind: Kind) -> tuple[str, list[Curve]]:
    """The losses of each size at the ends of its runs, which is as a curve of finished runs; none
    where they are too few."""
    ends: dict[float, dict[int, list[float]]] = {}
    for run in runs:
        ends.setdefault(run.size, {}).setdefault(run.manifest.tokens, []).append(run.loss(kind))
    curves = [
        Curve(
            size,
            np.array(sorted(lengths)) / MILLION,
            np.array([np.mean(lengths[length]) for length in sorted(lengths)]),
        )
        for size, lengths in ends.items()
        if len(lengths) >= _FEWEST_LENGTHS
    ]
    return "ends", curves if len(curves) >= _FEWEST_LENGTHS else []


def _curves(runs: Sequence[FinishedRun], kind: Kind) -> tuple[str, list[Curve]]:
    """The runs' curves of `kind`, or the training's where evaluations are too few for one; none
    where its losses are too few as well."""
    schedule = runs[0].config.schedule
    falls = schedule.kind != "wsd" and schedule.min_ratio < 1
    for each in (kind, "training"):
        curves = [run.curve(each) for run in runs]
        if all(len(curve.tokens) >= _FEWEST_POINTS for curve in curves):
            return FALLING if falls else "curves", curves
    return "", []


def _token_law(
    law: LawFigures, source: str, curves: Sequence[Curve], read: int
) -> TokenLawFigures | None:
    """The law in both, which at the tokens that were read is the one of the sizes."""
    if not curves:
        return None
    by = fit_tokens(curves)
    floor = law.c - by.B * (read / MILLION) ** -by.beta
    return TokenLawFigures(E=floor, A=law.a, alpha=-law.b, B=by.B, beta=by.beta, source=source)


def _shifted(record: PredictionRecord, curves: Sequence[Curve], tokens: float) -> PredictionRecord:
    """The prediction for other tokens than the runs'."""
    assert record.tokens is not None, "runs have read some"
    if not record.tokens / LONGEST <= tokens <= record.tokens * LONGEST:
        raise DataError(
            f"--tokens {tokens:,.0f}: the runs have read {record.tokens:,.0f}, and say nothing of "
            f"more than {LONGEST:g} times as many, or less than one part in {LONGEST:g}; train "
            "runs of about that length"
        )
    before, after = record.tokens / MILLION, tokens / MILLION
    change, half = shift(curves, before, after)
    low, high = record.interval
    reach = [hypot(record.prediction - low, half), hypot(high - record.prediction, half)]
    prediction = record.prediction + change
    assert record.token_law is not None, "there are curves"
    warnings = list(record.warnings)
    if record.token_law.source == FALLING:
        warnings.append(FALLS)
    if fit_tokens(curves).is_at_edge:
        warnings.append(EDGE)
    return record.model_copy(
        update={
            "law": record.law.model_copy(update={"c": record.law.c + change}),
            "prediction": prediction,
            "interval": (prediction - reach[0], prediction + reach[1]),
            "at": record.at.model_copy(update={"tokens": tokens}),
            "warnings": tuple(warnings),
        }
    )
