"""Finished runs and their losses, from their folders."""

from dataclasses import dataclass
from functools import cached_property
from math import isfinite
from pathlib import Path
from typing import Literal

import numpy as np

from teleflm.checkpoint.load import find_checkpoint
from teleflm.checkpoint.manifest import Manifest, read_manifest
from teleflm.config.run import RunConfig
from teleflm.errors import DataError
from teleflm.growth.event import run_start
from teleflm.model.axes import parameter_count
from teleflm.prediction.law import Array
from teleflm.prediction.tokens import Curve
from teleflm.report.records import Trace, column, read_trace

Kind = Literal["held-out", "training"]
"""Which loss of a run."""

MILLION = 1e6
# Of the steps: so many last ones are a run's training loss, which one batch alone is not.
_WINDOW = 0.05
# Of a curve of training losses.
_POINTS = 24
# Times its lowest loss: a run that ends above has diverged.
_WORSE = 1.1


@dataclass(frozen=True)
class FinishedRun:
    """A run folder whose run is over."""

    path: Path
    manifest: Manifest
    trace: Trace

    @property
    def config(self) -> RunConfig:
        """What determined it."""
        assert self.manifest.config is not None, "read_run refuses a folder without"
        return self.manifest.config

    @property
    def size(self) -> float:
        """Millions of parameters, all of them, as nanoLM counts: with those of the vocabulary."""
        return parameter_count(self.manifest.model) / MILLION

    @property
    def first_step(self) -> int:
        """The step of the lineage that it began at."""
        return run_start(self.manifest.lineage).step

    @cached_property
    def training(self) -> tuple[Array, Array]:
        """(tokens, loss) after each step; NaN where a loss was not finite."""
        return self.trace.column("tokens"), self.trace.column("loss")

    @cached_property
    def held_out(self) -> tuple[Array, Array]:
        """(tokens, loss) at each evaluation."""
        rows = self.trace.evaluations
        steps = column(rows, "step") - self.first_step
        start = run_start(self.manifest.lineage).tokens
        return start + steps * self.config.tokens_per_step, column(rows, "loss")

    def curve(self, kind: Kind) -> Curve:
        """Its losses where they are a curve that a power of the tokens may follow: after the
        warm-up and the first eighth, and with `wsd` before the decay. Of the training's, means of
        `_POINTS` windows, each longer than the one before by the same factor."""
        tokens, losses = self.held_out if kind == "held-out" else self.training
        steps, schedule = self.config.training.steps, self.config.schedule
        begin = max(schedule.warmup_steps, steps // 8)
        decay = schedule.decay_fraction if schedule.kind == "wsd" else 0.0
        total = schedule.total_steps or steps
        own = (tokens - run_start(self.manifest.lineage).tokens) / self.config.tokens_per_step
        kept = (own > begin) & (own <= total - round(decay * total)) & np.isfinite(losses)
        tokens, losses = tokens[kept], losses[kept]
        if kind == "training" and len(tokens):
            edges = np.geomspace(tokens[0], tokens[-1] * (1 + 1e-9), _POINTS + 1)
            window = np.searchsorted(edges, tokens, side="right")
            parts = [window == each for each in np.unique(window)]
            tokens, losses = (
                np.array([values[part].mean() for part in parts]) for values in (tokens, losses)
            )
        return Curve(self.size, tokens / MILLION, losses)

    def loss(self, kind: Kind) -> float:
        """At its end: of the last evaluation, or the mean of the last twentieth of its steps."""
        if kind == "held-out":
            return float(self.held_out[1][-1])
        return float(_windows(self.training[1])[-1])


def read_run(path: Path) -> FinishedRun:
    """The run of a run folder.

    Raises:
        CheckpointError: no run folder, or a damaged one.
        DataError: it is not finished, or has diverged.
    """
    manifest = read_manifest(find_checkpoint(path))
    start = run_start(manifest.lineage).step
    trace = read_trace(path, str(path))
    metrics = [row for row in trace.metrics if start < row["step"] <= manifest.step]
    if manifest.config is None or not metrics:
        raise DataError(f"{path}: no run has trained there; name the folder of one")
    done, planned = manifest.step - start, manifest.config.training.steps
    if done != planned:
        raise DataError(
            f"{path}: has done {done:,} of {planned:,} steps; finish it (teleflm train "
            f"{path}/config.yaml), or leave it out"
        )
    evaluations = [row for row in trace.evaluations if start <= row["step"] <= manifest.step]
    run = FinishedRun(path, manifest, Trace(str(path), metrics, evaluations))
    _check_converged(run)
    return run


def _check_converged(run: FinishedRun) -> None:
    means = _windows(run.training[1])
    first, last, lowest = run.training[1][0], means[-1], np.nanmin(means, initial=np.inf)
    if not isfinite(last):
        reason = "its last losses are no numbers"
    elif last > _WORSE * lowest:
        reason = f"its loss was {lowest:.3f}, and ended at {last:.3f}"
    elif last >= first and run.first_step == 0 and len(run.training[1]) > 1:
        reason = f"its loss began at {first:.3f}, and ended at {last:.3f}"
    else:
        return
    raise DataError(
        f"{run.path}: diverged ({reason}), and tells nothing of other sizes; leave it out, or "
        "train it at a lower learning rate"
    )


def _windows(losses: Array) -> Array:
    """Means of windows of `_WINDOW` of the steps each, the last of which ends at the end; NaN
    where one has no loss that is a number."""
    size = max(1, round(_WINDOW * len(losses)))
    rows = losses[len(losses) % size :].reshape(-1, size)
    finite = np.isfinite(rows)
    counts = finite.sum(axis=1)
    sums = np.where(finite, rows, 0.0).sum(axis=1)
    return np.divide(sums, counts, out=np.full(len(rows), np.nan), where=counts > 0)
