"""The loss of a model that was not trained, from runs that were."""

from collections.abc import Sequence
from math import hypot

from teleflm.errors import DataError
from teleflm.model.axes import parameter_count
from teleflm.prediction.alike import check_alike, common_kind, target
from teleflm.prediction.predict import Point, predict
from teleflm.prediction.runs import MILLION, FinishedRun, Kind
from teleflm.prediction.tokens import fit_tokens, shift
from teleflm.report.prediction import Place, PredictionRecord, TokenLawFigures

_FEWEST_POINTS = 5
LONGEST = 4.0
"""Times the runs' tokens that a curve is believed at."""


def predict_from_runs(
    runs: Sequence[FinishedRun], at: str, tokens: float | None = None, leave: int = 0
) -> PredictionRecord:
    """Predict the loss of a model.

    Args:
        runs: alike but for size and seed.
        at: MODEL.
        tokens: that it reads, as many as the runs where None.
        leave: see `predict`.

    Raises:
        DataError: see `check_alike`, `target` and `predict`; or tokens too far from the runs'.
        ConfigError: no such MODEL.
    """
    told = check_alike(runs)
    model, differences = target(at, runs)
    kind, read = common_kind(runs), runs[0].manifest.tokens
    longer = tokens is not None and round(tokens) != read
    if longer:
        kind = _kind_of_curves(runs, kind)
    points = [Point(str(run.path), run.size, run.loss(kind)) for run in runs]
    record = predict(points, parameter_count(model) / MILLION, leave, kind)
    place = Place(parameters_million=record.at.parameters_million, model=at, tokens=float(read))
    warnings = (*told, *differences, *record.warnings)
    record = record.model_copy(update={"at": place, "tokens": read, "warnings": warnings})
    return _shifted(record, runs, kind, tokens) if longer and tokens is not None else record


def _kind_of_curves(runs: Sequence[FinishedRun], kind: Kind) -> Kind:
    """`kind`, or the training's where evaluations are too few for a curve."""
    if all(len(run.curve(kind).tokens) >= _FEWEST_POINTS for run in runs):
        return kind
    for run in runs:
        if len(run.curve("training").tokens) < _FEWEST_POINTS:
            raise DataError(
                f"{run.path}: its {run.config.training.steps:,} steps are too few to tell what "
                "more tokens do; leave out --tokens"
            )
    return "training"


def _shifted(
    record: PredictionRecord, runs: Sequence[FinishedRun], kind: Kind, tokens: float
) -> PredictionRecord:
    """The prediction for other tokens than the runs'."""
    assert record.tokens is not None, "runs have read some"
    if not record.tokens / LONGEST <= tokens <= record.tokens * LONGEST:
        raise DataError(
            f"--tokens {tokens:,.0f}: the runs have read {record.tokens:,.0f}, and their curves "
            f"say nothing of more than {LONGEST:g} times as many, or less than a part in as many; "
            "train runs of about that length"
        )
    before, after = record.tokens / MILLION, tokens / MILLION
    curves = [run.curve(kind) for run in runs]
    law, old = fit_tokens(curves), record.law
    change, half = shift(curves, before, after)
    low, high = record.interval
    reach = [hypot(record.prediction - low, half), hypot(high - record.prediction, half)]
    prediction = record.prediction + change
    at_end = law.B * before**-law.beta
    figures = {"E": old.c - at_end, "A": old.a, "alpha": -old.b, "B": law.B, "beta": law.beta}
    return record.model_copy(
        update={
            "law": old.model_copy(update={"c": old.c + change}),
            "prediction": prediction,
            "interval": (prediction - reach[0], prediction + reach[1]),
            "at": record.at.model_copy(update={"tokens": tokens}),
            "token_law": TokenLawFigures(**figures),
            "warnings": (*record.warnings, *_about_the_schedule(runs[0])),
        }
    )


def _about_the_schedule(run: FinishedRun) -> list[str]:
    schedule = run.config.schedule
    if schedule.min_ratio == 1 or (schedule.kind == "wsd" and schedule.decay_fraction == 0):
        return []
    return [
        f"what more tokens do is read off curves whose learning rate falls ({schedule.kind}): "
        "within a run the loss is not that of a run which ends there"
    ]
