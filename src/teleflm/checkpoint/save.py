"""Saving: a checkpoint folder of that name is whole, or it is not there.

Every rank writes its parts into a hidden folder beside, and syncs them. The first one lists all
files with size and checksum in the manifest, and renames the folder into place. Where one rank
fails, all do, nothing is left behind and what was there stands.
"""

import warnings
from contextlib import ExitStack
from pathlib import Path

import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import CheckpointException

from teleflm.checkpoint.manifest import (
    MANIFEST,
    FileRecord,
    Manifest,
    manifest_of,
    record_files,
)
from teleflm.checkpoint.parts import PartPlanner, all_names, parts_of
from teleflm.checkpoint.writer import StreamingWriter
from teleflm.config.run import RunConfig
from teleflm.data.identity import Source
from teleflm.data.special_ids import copy_for_text
from teleflm.errors import CheckpointError
from teleflm.files import naming_full_disk, written_aside
from teleflm.growth.state import TrainingState
from teleflm.parallel.ranks import Ranks

TOKENIZER = "tokenizer"


def step_folder(run_dir: Path, step: int) -> Path:
    """Where a run keeps its checkpoint of `step`."""
    return run_dir / "checkpoints" / f"step-{step:08d}"


def save_checkpoint(
    folder: Path,
    state: TrainingState,
    config: RunConfig | None,
    tokenizer: Path | None,
    *,
    data: dict[str, Source] | None = None,
    force: bool = False,
    group: dist.ProcessGroup | None = None,
) -> None:
    """Write a checkpoint; where `torch.distributed` is initialised, all ranks of the group do.

    What it holds does not depend on who held what: tensors have the model's shapes. A part that
    several ranks hold is written by one of them.

    Args:
        folder: where, on a disk that all ranks see; its parent is made.
        state: what to save, on each rank the regions that it holds.
        config: the resolved run, for the manifest.
        tokenizer: a folder of tokenizer files that travels with the model.
        data: what the run reads, for the manifest.
        force: replace what is there.
        group: a process group that carries CPU tensors (gloo), the world's where None.

    Raises:
        CheckpointError: something is there already.
        MachineError: the disk of a rank is full or fails.
        RunLockedError: another process is writing the same checkpoint.
    """
    ranks = Ranks(group)
    with ExitStack() as aside, naming_full_disk(folder):

        def begin() -> Path:
            refuse_existing(folder, force)
            return aside.enter_context(written_aside(folder))

        def complete() -> None:
            write_manifest(partial, manifest_of(state, config, records, data), tokenizer)
            aside.close()

        partial = ranks.from_first(begin)
        records = _write_tensors(partial, state, ranks)
        ranks.from_first(complete)


def check_place(folder: Path, force: bool) -> None:
    """Refuse to write a checkpoint to where something else is, or one that is not to be replaced.

    Raises:
        CheckpointError: naming it.
    """
    if folder.exists() and not (folder / MANIFEST).is_file():
        raise CheckpointError(
            f"{folder}: exists and is no checkpoint, so it stays; give another place"
        )
    refuse_existing(folder, force)


def refuse_existing(folder: Path, force: bool) -> None:
    """Refuse to write to where anything is, unless it is to be replaced.

    Raises:
        CheckpointError: naming it.
    """
    if folder.exists() and not force:
        raise CheckpointError(f"{folder}: exists; give another place, or --force to replace it")


def write_manifest(folder: Path, manifest: Manifest, tokenizer: Path | None) -> None:
    """Complete a folder that has all tensors: the tokenizer's files, and the manifest of all."""
    files = dict(manifest.files)
    if tokenizer is not None:
        copy_for_text(tokenizer, folder / TOKENIZER)
        for name, record in record_files(folder / TOKENIZER).items():
            files[f"{TOKENIZER}/{name}"] = record
    whole = manifest.model_copy(update={"files": files})
    (folder / MANIFEST).write_text(whole.model_dump_json(indent=1), encoding="utf-8")


def _write_tensors(folder: Path, state: TrainingState, ranks: Ranks) -> dict[str, FileRecord]:
    """Write every rank's parts; what was written is known on the first one."""
    writer = StreamingWriter(folder)
    with warnings.catch_warnings():
        # It says that there is no process group; with one process there need not be.
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        try:
            stored = dcp.save(
                dict(parts_of(state)),
                storage_writer=writer,
                planner=PartPlanner(),
                process_group=ranks.group,
                no_dist=not ranks.many,
            )
        except CheckpointException as error:
            # It is no Exception, so nobody would catch it, and hides what failed in its text.
            failure, _ = min(error.failures.items())[1]
            raise failure from None
    # That each tensor is all there was checked with the plan; one that nobody holds is in none.
    if missing := all_names(state) - stored.state_dict_metadata.keys():
        raise ValueError(f"no rank holds {min(missing)!r} and {len(missing) - 1} others")
    return writer.records
