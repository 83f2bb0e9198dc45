"""The precision of a run: settled once when it starts, kept when it goes on, changed on request."""

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from teleflm.checkpoint.load import checkpoints
from teleflm.checkpoint.manifest import read_manifest
from teleflm.config.run import Precision, RunConfig, settled_dtype
from teleflm.errors import CheckpointError
from teleflm.growth.state import TrainingState
from teleflm.model.precision import check_precision, fast_precision, slowness_of_bf16
from teleflm.parallel.ranks import Ranks


def settled(config: RunConfig, ranks: Ranks, device: torch.device) -> RunConfig:
    """The run with a precision to compute in; the first rank decides for all.

    `auto` is the precision of the run's newest checkpoint, so that it computes as before, or in a
    new run what the device computes fast.

    Raises:
        ConfigError: the device has no numbers of that precision.
    """
    return settled_dtype(config, ranks.from_first(partial(_settled, config, device)))


def _settled(config: RunConfig, device: torch.device) -> Precision:
    asked = config.training.dtype
    found = _saved(Path(config.run_dir)) or fast_precision(device) if asked == "auto" else asked
    check_precision(found, device)
    return found


def _saved(run_dir: Path) -> Precision | None:
    """What the newest checkpoint of a run was computed in, None where there is none."""
    for folder in reversed(checkpoints(run_dir)):
        try:
            saved = read_manifest(folder).config
        except CheckpointError:
            continue  # whoever loads it says so
        if saved is not None:
            return saved.training.precision
    return None


def tell_if_slow(config: RunConfig, device: torch.device) -> None:
    """Say what bf16 costs where the processor only imitates it."""
    if config.training.precision != "bf16" or fast_precision(device) == "bf16":
        return
    times = slowness_of_bf16(device)
    if times > 1:
        print(
            f"{config.run_dir}: training.dtype is bf16, whose products take this machine "
            f"{times:.2g} times as long as fp32's; it can go on in fp32: set training.dtype to it, "
            "on the command line of `teleflm train` or in the file",
            file=sys.stderr,
            flush=True,
        )


def in_precision(state: TrainingState, before: RunConfig, now: RunConfig) -> TrainingState:
    """A state that was computed in one precision goes on in another: an event of its lineage.

    Args:
        state: as it was loaded.
        before: the run by its checkpoint.
        now: the run that goes on.
    """
    # After a roll back to this very checkpoint its lineage may know of changes that came since.
    changes = [event.precision for event in state.lineage if event.step == state.step]
    standing = next(filter(None, reversed(changes)), before.training.precision)
    new = now.training.precision
    if new == standing:
        return state
    event = state.event("precision", state.model, source=state.model, precision=new)
    return replace(state, lineage=(*state.lineage, event))
