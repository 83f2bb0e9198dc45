"""Going back to a checkpoint, past the batches since: a resume with other batches.

The target is the newest checkpoint that was saved on schedule. One that a signal saved in between
would make the run depend on where it was stopped.
"""

from pathlib import Path

from teleflm.checkpoint.load import checkpoint_step, checkpoints
from teleflm.checkpoint.manifest import problems
from teleflm.errors import CheckpointError, DivergedError
from teleflm.files import remove_folder
from teleflm.growth.event import Lineage
from teleflm.training.run import Run


def scheduled_checkpoints(run: Run, step: int) -> list[Path]:
    """The checkpoints that the run saved on schedule up to `step`, oldest first."""
    steps = {folder: checkpoint_step(folder) for folder in checkpoints(run.directory)}
    return [folder for folder, at in steps.items() if at <= step and run.is_scheduled(at)]


def roll_back(run: Run, reason: str) -> Lineage:
    """Go back to before the newest step: on disk, the rest is the run's next start from there.

    The checkpoint itself stays as it is. A process that is killed before the next save trains up to
    the same fault again, and goes back again. No save may be under way: the hooks are closed.

    Returns:
        The lineage to go on with, whose new event skips the batches since the checkpoint.

    Raises:
        DivergedError: no whole checkpoint to go back to, or too many roll backs to this one.
    """
    target = next(filter(_is_whole, reversed(scheduled_checkpoints(run, run.step - 1))), None)
    if target is None:
        raise DivergedError(
            f"{run.directory}: {reason} at step {run.step}, and no whole checkpoint on schedule to "
            "roll back to; set spikes.answer to skip or log to go on"
        )
    step = checkpoint_step(target)
    kept = tuple(event for event in run.lineage if event.step <= step)
    before = sum(event.operator == "roll_back" and event.step == step for event in kept)
    if before >= run.config.faults.max_in_a_row:
        raise DivergedError(
            f"{run.directory}: {reason} at step {run.step}, after {before} roll backs to step "
            f"{step} for the like; that checkpoint stands: lower the learning rate in a new "
            "run_dir, or raise faults.max_in_a_row"
        )
    for folder in checkpoints(run.directory):
        if checkpoint_step(folder) > step:
            remove_folder(folder)
    return (*kept, run.event("roll_back", step, run.step - step, reason))


def _is_whole(folder: Path) -> bool:
    try:
        return not any(problems(folder))
    except CheckpointError:
        return False
