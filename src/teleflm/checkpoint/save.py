"""Saving: a checkpoint folder of that name is whole, or it is not there.

Files are written into a hidden folder beside, synced, listed with size and checksum in the
manifest, and renamed into place. The tensors are PyTorch's distributed checkpoint in safetensors
files: sharded saving and loading without a pickle.
"""

import errno
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import CheckpointException, HuggingFaceStorageWriter

from teleflm.checkpoint.manifest import MANIFEST, Manifest, record_files, sync
from teleflm.config.run import RunConfig
from teleflm.errors import CheckpointError, MachineError
from teleflm.growth.state import TrainingState

TOKENIZER = "tokenizer"
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)
# Prefixes of the three kinds of tensors; weights keep their plain names.
FIRST_MOMENT, SECOND_MOMENT = "exp_avg.", "exp_avg_sq."


def step_folder(run_dir: Path, step: int) -> Path:
    """Where a run keeps its checkpoint of `step`."""
    return run_dir / "checkpoints" / f"step-{step:08d}"


def save_checkpoint(
    folder: Path,
    state: TrainingState,
    config: RunConfig | None,
    tokenizer: Path | None,
    *,
    force: bool = False,
) -> None:
    """Write a checkpoint.

    Args:
        folder: where; its parent is made.
        state: what to save.
        config: the resolved run, for the manifest.
        tokenizer: a folder of tokenizer files that travels with the model.
        force: replace what is there.

    Raises:
        CheckpointError: something is there already.
        MachineError: the disk is full or fails; nothing is left behind, older checkpoints stand.
    """
    if folder.exists() and not force:
        raise CheckpointError(f"{folder}: exists; give another place, or --force to replace it")
    with written_aside(folder) as partial:
        _write_tensors(partial, state)
        if tokenizer is not None:
            shutil.copytree(tokenizer, partial / TOKENIZER)
        manifest = Manifest(
            step=state.step,
            tokens=state.tokens,
            sequences=state.sequences,
            flops=state.flops,
            adam_steps=state.adam_steps,
            model=state.model,
            lineage=state.lineage,
            config=config,
            files=record_files(partial),
        )
        (partial / MANIFEST).write_text(manifest.model_dump_json(indent=1), encoding="utf-8")


@contextmanager
def written_aside(folder: Path) -> Iterator[Path]:
    """A fresh folder to write into, which becomes `folder` when all went well.

    Raises:
        MachineError: the disk is full or fails.
    """
    partial, old = (folder.parent / f".{folder.name}.{kind}" for kind in ("partial", "old"))
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        for path in (*partial.rglob("*"), partial):
            sync(path)
        if folder.exists():
            # Moved, not removed: a crash in between must not lose both.
            shutil.rmtree(old, ignore_errors=True)
            folder.rename(old)
        partial.rename(folder)
        sync(folder.parent)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if (reason := _disk_error(error)) is not None:
            raise MachineError(
                f"{folder}: not written ({reason}); free some space and run the same command "
                "again, it goes on from what was finished"
            ) from error
        raise


def _disk_error(error: BaseException | None) -> str | None:
    """The operating system's word where a disk failed, also from inside a library's error."""
    if error is None:
        return None
    if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
        return error.strerror
    if "No space left" in str(error):
        return "No space left on device"
    return _disk_error(error.__cause__ or error.__context__)


def _write_tensors(folder: Path, state: TrainingState) -> None:
    tensors = dict(state.weights)
    tensors |= {FIRST_MOMENT + name: moment for name, moment in state.exp_avg.items()}
    tensors |= {SECOND_MOMENT + name: moment for name, moment in state.exp_avg_sq.items()}
    with warnings.catch_warnings():
        # It says that there is no process group; with one process there need not be.
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        try:
            dcp.save(
                tensors,
                storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True),
                no_dist=True,
            )
        except CheckpointException as error:
            # It is no Exception, so nobody would catch it, and hides what failed in its text.
            failure, _ = next(iter(error.failures.values()))
            raise failure from None
