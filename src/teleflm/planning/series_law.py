"""A series by a law of the loss: what each stage ends at, and whether growing pays.

The law is that of `teleflm predict --json`; what the series then did is in its summary.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from teleflm.config.series import load_series
from teleflm.errors import DataError
from teleflm.model.axes import parameter_count
from teleflm.planning.series import SeriesPlan
from teleflm.prediction.from_runs import LONGEST
from teleflm.prediction.predict import FURTHEST
from teleflm.prediction.runs import MILLION
from teleflm.prediction.stages import StageLoss, StageSize, stage_losses
from teleflm.report.prediction import (
    FALLING,
    FALLS,
    PredictionRecord,
    TokenLawFigures,
    read_prediction,
)
from teleflm.report.summary import read_summary


@dataclass(frozen=True)
class SeriesByLaw:
    """What a law says of a planned series.

    Attributes:
        stages: the losses of each.
        sizes: millions of parameters of each, by the vocabulary of the law's runs.
        measured: held-out losses that the stages ended with; None where a stage has not.
        scratch: the loss of the last model from scratch, on all of the series' tokens.
        same_cost: the same for the series' GPU-hours.
        earlier_token_worth: what a token of the stages before the last one is worth, in tokens at
            the last size; None of a series that does not grow.
        reach: millions of tokens, up to which the law is believed.
        warnings: what speaks against the law.
    """

    stages: tuple[StageLoss, ...]
    sizes: tuple[float, ...]
    measured: tuple[float | None, ...]
    scratch: float
    same_cost: float
    earlier_token_worth: float | None
    reach: float
    warnings: tuple[str, ...]

    @property
    def end(self) -> float:
        """The loss that the series ends with."""
        return self.stages[-1].end

    @property
    def pays(self) -> bool:
        """Whether it is below that of the last model from scratch for the same GPU-hours."""
        return self.end < self.same_cost


def by_law(found: SeriesPlan, series: Path, law_file: Path) -> SeriesByLaw:
    """What a law says of a series.

    Args:
        found: its plan.
        series: the SERIES.yaml.
        law_file: what `teleflm predict --json` printed.

    Raises:
        DataError: the file is no such, has no law in tokens or another vocabulary, or is too far
            from the series.
    """
    record = read_prediction(law_file)
    law = record.token_law
    if law is None:
        raise DataError(
            f"{law_file}: has no law in tokens, which the stages of a series need; predict from "
            "runs, of three lengths or with enough losses of one"
        )
    sizes = tuple(_sizes(found, record, law_file))
    tokens = [stage.effort.tokens / MILLION for stage in found.stages]
    reach = _check_distance(record, law_file, max(sizes), sum(tokens))
    stages = [
        StageSize(size, read, stage.effort.gpu_hours / stage.effort.tokens)
        for size, read, stage in zip(sizes, tokens, found.stages, strict=True)
    ]
    losses, even = stage_losses(law, stages), found.break_even
    same = sum(tokens) if even is None else even.tokens / MILLION
    return SeriesByLaw(
        stages=tuple(losses),
        sizes=sizes,
        measured=_measured(series, [stage.name for stage in found.stages]),
        scratch=law.at(sizes[-1], sum(tokens)),
        same_cost=law.at(sizes[-1], same),
        earlier_token_worth=None if even is None else losses[-1].head_start / sum(tokens[:-1]),
        reach=reach,
        warnings=tuple(_warnings(record, law)),
    )


def _sizes(found: SeriesPlan, record: PredictionRecord, law_file: Path) -> Iterator[float]:
    """Millions of parameters of each stage, with the vocabulary of the law's runs where the series
    leaves it to its data."""
    first = found.stages[0].plan.config.model
    if "vocab_size" in first.model_fields_set and first.vocab_size != record.vocab_size:
        raise DataError(
            f"{law_file}: is of a vocabulary of {record.vocab_size:,} tokens, the series has "
            f"{first.vocab_size:,}: losses by token of one say nothing of the other"
        )
    for stage in found.stages:
        update = {"vocab_size": record.vocab_size}
        yield parameter_count(stage.plan.config.final_model.model_copy(update=update)) / MILLION


def _check_distance(record: PredictionRecord, law_file: Path, size: float, tokens: float) -> float:
    """The millions of tokens that the law reaches, where the series is within."""
    largest = max(point.parameters_million for point in record.points if not point.left_out)
    assert record.tokens is not None, "a law in tokens is of runs"
    reach = LONGEST * record.tokens / MILLION
    for what, value, limit in (
        ("parameters", size, FURTHEST * largest),
        ("tokens", tokens, reach),
    ):
        if value > limit:
            raise DataError(
                f"{law_file}: the series comes to {value:,.4g} M {what}, and the law is good for "
                f"{limit:,.4g} M: {FURTHEST:g} times the largest size of its runs, and {LONGEST:g} "
                "times their tokens; predict from runs that are nearer"
            )
    return reach


def _measured(series: Path, names: list[str]) -> tuple[float | None, ...]:
    """What the stages ended at, as far as the series has run to its end."""
    folder = Path(load_series(series).series_dir)
    if not (folder / "summary.json").exists():
        return (None,) * len(names)
    ends = {stage.name: stage.loss_after for stage in read_summary(folder).stages}
    return tuple(ends.get(name) for name in names)


def _warnings(record: PredictionRecord, law: TokenLawFigures) -> list[str]:
    found = [each for each in record.warnings if each != FALLS]
    return [*found, FALLS] if law.source == FALLING else found
