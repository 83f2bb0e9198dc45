"""What is judged of a trial: its loss, and how calmly it got there.

Tele-FLM's search (arXiv 2404.16645) looked at the rate of the loss's decrease, and at how steady
its trend and the gradient norm are. All follows from a run folder's metrics.jsonl and
evaluation.jsonl, so that a run that was killed has the same figures.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from teleflm.errors import DivergedError
from teleflm.files import read_jsonl

TENTHS = 10
# Over so many steps before it the median is taken that a gradient norm is compared with.
_WINDOW = 32
_SPIKE = 3.0

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Criteria:
    """Over the second half of a run's steps, but for the counts, which are of all of them.

    Attributes:
        slope: of the loss, nats per 1,000 steps; negative while it falls.
        roughness: standard deviation of the loss from step to step around its trend, nats.
        grad_norm_trend: slope of the gradient norm's logarithm per 1,000 steps; 0 is steady.
        grad_norm_spikes: steps with a gradient norm above 3 times the median of the 32 before.
        loss_spikes: steps that `spikes` of RUN.yaml calls so.
        skips: steps whose update was not taken.
    """

    slope: float | None
    roughness: float | None
    grad_norm_trend: float | None
    grad_norm_spikes: float
    loss_spikes: float
    skips: float


def criteria(run_dir: Path) -> Criteria:
    """The criteria of a run folder, as far as it got."""
    rows = read_jsonl(run_dir / "metrics.jsonl")
    loss, norm = (_column(rows, key) for key in ("loss", "grad_norm"))
    half = len(rows) // 2
    with np.errstate(divide="ignore"):
        trend = _slope(np.log(norm[half:]))
    return Criteria(
        slope=_slope(loss[half:]),
        roughness=_roughness(loss[half:]),
        grad_norm_trend=trend,
        grad_norm_spikes=_spikes(norm),
        loss_spikes=sum(row.get("fault") == "spike" for row in rows),
        skips=sum(bool(row.get("skipped")) for row in rows),
    )


def mean_criteria(found: Sequence[Criteria]) -> dict[str, float | None]:
    """The means over a trial's runs; None where no run has a figure."""
    means: dict[str, float | None] = {}
    for field in fields(Criteria):
        values = [v for each in found if (v := getattr(each, field.name)) is not None]
        means[field.name] = fmean(values) if values else None
    return means


def training_losses(run_dir: Path) -> list[float | None]:
    """The loss of each step of a run folder."""
    return [row["loss"] for row in read_jsonl(run_dir / "metrics.jsonl")]


def finished_loss(run_dir: Path) -> float:
    """What a finished run is judged by, nats a token: its last held-out loss, or where its text has
    no held-out part the mean training loss of its last tenth.

    Raises:
        DivergedError: it is not finite.
    """
    losses, held_out = training_losses(run_dir), read_jsonl(run_dir / "evaluation.jsonl")
    loss = held_out[-1]["loss"] if held_out else tenths(losses, len(losses))[TENTHS]
    if not math.isfinite(loss):
        raise DivergedError(f"{run_dir}: its loss is {loss}")
    return float(loss)


def tenth_ends(steps: int) -> dict[int, int]:
    """The tenth of a run that ends at a step, by the step; a short run has fewer."""
    return {-(-steps * tenth // TENTHS): tenth for tenth in range(1, TENTHS + 1)}


def tenths(losses: Sequence[float | None], steps: int) -> dict[int, float]:
    """The mean training loss of each tenth of a run's `steps` that is over, by its number from 1.

    Steps without a finite loss are left out; a tenth of such alone is NaN.
    """
    found: dict[int, float] = {}
    begin = 0
    for end, tenth in tenth_ends(steps).items():
        if end <= len(losses):
            finite = [loss for loss in losses[begin:end] if loss is not None]
            found[tenth] = fmean(finite) if finite else math.nan
        begin = end
    return found


def _column(rows: Sequence[dict[str, Any]], key: str) -> Array:
    return np.array([math.nan if row[key] is None else row[key] for row in rows], np.float64)


def _slope(values: Array) -> float | None:
    """Of the least-squares line, per 1,000 steps."""
    at = np.flatnonzero(np.isfinite(values))
    if len(at) < 3:
        return None
    centred = at - at.mean()
    return float(1000 * (centred @ values[at]) / (centred @ centred))


def _roughness(values: Array) -> float | None:
    """From second differences, to which a trend and its bend add next to nothing; of white noise
    they have 6 times its variance."""
    second = np.diff(values, 2)
    second = second[np.isfinite(second)]
    return float(np.sqrt(np.mean(second**2) / 6)) if len(second) else None


def _spikes(norm: Array) -> int:
    count = 0
    for at in range(_WINDOW // 2, len(norm)):
        before = norm[max(0, at - _WINDOW) : at]
        before = before[np.isfinite(before)]
        count += bool(len(before) and norm[at] > _SPIKE * np.median(before))
    return count
