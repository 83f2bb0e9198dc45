"""Checkpoints of the run."""

import sys
from pathlib import Path

import torch.distributed as dist

from teleflm.checkpoint.background import Background, Staging
from teleflm.checkpoint.load import checkpoint_step, checkpoints
from teleflm.checkpoint.save import save_checkpoint, step_folder
from teleflm.errors import MachineError
from teleflm.files import clear_left_behind, remove_folder
from teleflm.growth.state import TrainingState
from teleflm.parallel.ranks import Ranks
from teleflm.training.hooks.base import Hook
from teleflm.training.roll_back import scheduled_checkpoints
from teleflm.training.run import Run, StepRecord


class SaveCheckpoints(Hook):
    """One at the run's first step, every `checkpoint.every` steps, and at the end.

    The newest `checkpoint.keep` stay, the one that a roll back would go to, and for ever those
    whose own step is a multiple of `checkpoint.keep_every`. A save that fails is told and the run
    goes on; at the end it is an error, as nothing would be kept of the steps since the last. All
    ranks call this alike.
    """

    on_every_rank = True

    def __init__(self) -> None:
        self._background = Background()
        self._staging = Staging()
        self._saved: int | None = None

    def on_start(self, run: Run) -> None:
        # Of its own, as a thread must not mix its messages with those of the steps.
        group = None
        if dist.is_initialized():
            group = dist.new_group(backend="gloo", timeout=run.config.faults.timeout)
        self._ranks = Ranks(group)
        # The one that the run goes on from is whole; a later one was passed over as damaged, and
        # is replaced when its step comes.
        if self._ranks.from_first(lambda: self._begin(run)):
            self._saved = run.step
        elif run.own_steps == 0:
            self._save(run)

    def _begin(self, run: Run) -> bool:
        """Clear up after a killed process; whether there is a checkpoint of the present step."""
        clear_left_behind(step_folder(run.directory, run.step).parent)
        return step_folder(run.directory, run.step).exists()

    def on_step(self, run: Run, record: StepRecord) -> None:
        if run.is_scheduled(run.step):
            self._save(run)

    def on_end(self, run: Run) -> None:
        self._background.wait()
        if self._saved != run.step:
            self._write(run, run.state())

    def close(self) -> None:
        self._background.wait()

    def _save(self, run: Run) -> None:
        if not run.config.checkpoint.asynchronous:
            self._try_to_write(run, run.state())
            return
        self._background.wait()
        state = self._staging.copy(run.state())
        self._background.start(lambda: self._try_to_write(run, state))

    def _try_to_write(self, run: Run, state: TrainingState) -> None:
        try:
            self._write(run, state)
        except MachineError as error:
            if self._ranks.first:
                print(f"the run goes on without this checkpoint: {error}", file=sys.stderr)

    def _write(self, run: Run, state: TrainingState) -> None:
        folder = step_folder(run.directory, state.step)
        save_checkpoint(
            folder,
            state,
            run.config,
            run.tokenizer,
            data=run.sources,
            force=True,
            group=self._ranks.group,
        )
        self._saved = state.step
        if self._ranks.first:
            for old in _not_kept(run, folder):
                remove_folder(old)


def _not_kept(run: Run, newest: Path) -> list[Path]:
    """The checkpoints that `newest` makes superfluous."""
    config, last = run.config.checkpoint, checkpoint_step(newest)
    known = [folder for folder in checkpoints(run.directory) if checkpoint_step(folder) <= last]
    kept = known[-config.keep :]
    if run.config.spikes.answer == "roll_back":
        kept += scheduled_checkpoints(run, last)[-1:]
    if config.keep_every is not None:
        kept += [f for f in known if (checkpoint_step(f) - run.first_step) % config.keep_every == 0]
    return [folder for folder in known if folder not in kept]
