"""Saving: a checkpoint folder of that name is whole, or it is not there.

Files are written into a hidden folder beside, synced, listed with size and checksum in the
manifest, and renamed into place. The tensors are PyTorch's distributed checkpoint in safetensors
files: sharded saving and loading without a pickle.
"""

import shutil
import warnings
from pathlib import Path

import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import CheckpointException, HuggingFaceStorageWriter

from teleflm.checkpoint.manifest import MANIFEST, Manifest, record_files
from teleflm.config.run import RunConfig
from teleflm.errors import CheckpointError
from teleflm.files import written_aside
from teleflm.growth.state import TrainingState

TOKENIZER = "tokenizer"
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
