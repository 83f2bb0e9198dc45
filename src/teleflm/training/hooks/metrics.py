"""metrics.jsonl and TensorBoard."""

from contextlib import ExitStack, closing
from dataclasses import asdict
from typing import Any

from teleflm.training.hooks.base import Hook
from teleflm.training.hooks.jsonl import JsonLines
from teleflm.training.run import Run, StepRecord

METRICS = "metrics.jsonl"


class Metrics(Hook):
    """A line a step in metrics.jsonl."""

    def __init__(self) -> None:
        self._open = ExitStack()

    def on_start(self, run: Run) -> None:
        lines = JsonLines(run.directory / METRICS, run.step)
        self._lines = self._open.enter_context(closing(lines))

    def on_step(self, run: Run, record: StepRecord) -> None:
        self._lines.append(asdict(record))

    def close(self) -> None:
        self._open.close()


class TensorBoard(Hook):
    """The same figures as TensorBoard scalars; without the library, nothing."""

    def __init__(self) -> None:
        self._writer: Any = None

    def on_start(self, run: Run) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        # Events of steps that a resumed run takes again are struck out.
        self._writer = SummaryWriter(str(run.directory / "tensorboard"), purge_step=run.step + 1)

    def on_step(self, run: Run, record: StepRecord) -> None:
        if self._writer is None:
            return
        for key, value in asdict(record).items():
            if isinstance(value, int | float) and key != "step":
                self._writer.add_scalar(f"train/{key}", value, record.step)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
