"""Progress: a bar with rate and time left on a terminal, plain lines elsewhere."""

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from teleflm.training.hooks.base import Hook
from teleflm.training.run import Run, StepRecord

_SECONDS_BETWEEN_LINES = 10.0


class ShowProgress(Hook):
    """On standard error, so that standard output stays free for results."""

    def __init__(self, title: str = "train") -> None:
        self._title = title
        self._bar: Progress | None = None

    def on_start(self, run: Run) -> None:
        self._last_line = self._started = time.monotonic()
        self._first = run.step
        console = Console(stderr=True)
        if not console.is_terminal:
            return
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=console,
        )
        total, done = run.config.training.steps, run.own_steps
        self._task = self._bar.add_task(self._title, total=total, completed=done, figures="")
        self._bar.start()

    def on_step(self, run: Run, record: StepRecord) -> None:
        loss = "loss –" if record.loss is None else f"loss {record.loss:.3f}"
        figures = f"{loss}  {record.tokens_per_second:,.0f} tok/s"
        if self._bar is not None:
            self._bar.update(self._task, completed=run.own_steps, figures=figures)
            return
        now = time.monotonic()
        is_last = run.step == run.last_step
        if now - self._last_line < _SECONDS_BETWEEN_LINES and not is_last:
            return
        self._last_line = now
        left = (now - self._started) / (run.step - self._first) * (run.last_step - run.step)
        print(
            f"{self._title}: step {run.own_steps}/{run.config.training.steps}  {figures}  "
            f"{left:.0f} s left",
            file=sys.stderr,
            flush=True,
        )

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
