"""Checkpoints of the run."""

import shutil

from teleflm.checkpoint.load import checkpoints
from teleflm.checkpoint.save import save_checkpoint, step_folder
from teleflm.training.hooks.base import Hook
from teleflm.training.roll_back import scheduled_checkpoints
from teleflm.training.run import Run, StepRecord


class SaveCheckpoints(Hook):
    """One at the run's first step, every `checkpoint.every` steps, and at the end; the newest
    `checkpoint.keep` stay, and the one that a roll back would go to."""

    on_every_rank = True

    def on_start(self, run: Run) -> None:
        # The one that the run goes on from is whole; a later one was passed over as damaged, and
        # is replaced when its step comes.
        self._saved = run.step if step_folder(run.directory, run.step).exists() else None
        if run.own_steps == 0:
            self._save(run)

    def on_step(self, run: Run, record: StepRecord) -> None:
        if run.is_scheduled(run.step):
            self._save(run)

    def on_end(self, run: Run) -> None:
        self._save(run)

    def _save(self, run: Run) -> None:
        folder = step_folder(run.directory, run.step)
        if run.step == self._saved:
            return
        save_checkpoint(folder, run.state(), run.config, run.tokenizer, force=True)
        self._saved = run.step
        known = [other for other in checkpoints(run.directory) if other <= folder]
        kept = known[-run.config.checkpoint.keep :]
        if run.config.spikes.answer == "roll_back":
            kept += scheduled_checkpoints(run, run.step)[-1:]
        for old in known:
            if old not in kept:
                shutil.rmtree(old)
