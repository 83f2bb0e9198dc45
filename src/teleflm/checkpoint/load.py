"""Loading our checkpoints, whole or piece by piece, on any layout."""

from collections.abc import Iterator, Mapping
from dataclasses import fields
from itertools import chain
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint import HuggingFaceStorageReader
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata

from teleflm.checkpoint.certified import certified_lineage
from teleflm.checkpoint.manifest import (
    MANIFEST,
    FileRecord,
    Manifest,
    checked,
    misfit,
    problems,
    read_manifest,
    strays,
)
from teleflm.checkpoint.parts import Part, stored_name
from teleflm.checkpoint.reader import read_parts
from teleflm.checkpoint.weight_files import refuse_gguf
from teleflm.config.model import ModelConfig
from teleflm.errors import CheckpointError, ConfigError
from teleflm.growth.state import KINDS, Kind, LazyState, Standing, TrainingState, all_finite
from teleflm.model.axes import parameter_names, parameter_of
from teleflm.model.region import Region, region_shape, whole
from teleflm.parallel.ranks import Ranks


def checkpoints(run_dir: Path) -> list[Path]:
    """The finished checkpoints of a run folder, oldest first."""
    # Eight digits or more, see `step_folder`; by number, as the name's order ends at 1e8 steps.
    found = [p for p in (run_dir / "checkpoints").glob("step-*") if p.name[5:].isdecimal()]
    return sorted(found, key=checkpoint_step)


def checkpoint_step(folder: Path) -> int:
    """The step of a run's checkpoint, by its name."""
    return int(folder.name[5:])


def find_checkpoint(path: Path) -> Path:
    """The checkpoint that a path means: itself, or the newest one of a run folder.

    Raises:
        CheckpointError: there is none.
    """
    if (path / MANIFEST).is_file():
        return path
    found = checkpoints(path)
    if found:
        return found[-1]
    if not path.exists():
        raise CheckpointError(f"{path}: no such checkpoint or run folder")
    refuse_gguf(path)
    raise CheckpointError(f"{path}: neither a checkpoint (no {MANIFEST}) nor a run folder with one")


def load_checkpoint(
    folder: Path,
    regions: Mapping[str, Region] | None = None,
    group: dist.ProcessGroup | None = None,
) -> tuple[Manifest, TrainingState]:
    """A checkpoint's manifest and training state, every file checked against the manifest.

    Where `torch.distributed` is initialised, all ranks of the group load together: each checks its
    share of the files and reads what it is to hold, and what is wrong for one is wrong for all.

    Args:
        folder: the checkpoint, whatever layout it was saved on.
        regions: what this process is to hold, all of it where None.
        group: a process group that carries CPU tensors (gloo), the world's where None.

    Raises:
        CheckpointError: it is damaged; the first bad file is named.
        ConfigError: `regions` are those of another model.
    """
    ranks = Ranks(group)
    manifest = ranks.from_first(lambda: read_manifest(folder))
    share = _share(manifest, ranks)
    ranks.agreed(lambda: _check_regions(folder, manifest.model, regions or {}))
    ranks.agreed(lambda: _look(folder, manifest, share))
    parts = ranks.agreed(lambda: _read(folder, manifest.model, regions, share))
    held = list(parameter_names(manifest.model) if regions is None else regions)
    weights, first, second = (
        {name: parts[stored_name(kind, name)].tensor for name in held} for kind in KINDS
    )
    state = TrainingState(
        **_standing(folder, manifest),
        weights=weights,
        exp_avg=first,
        exp_avg_sq=second,
        regions=regions,
    )
    return manifest, state


def open_checkpoint(
    folder: Path, group: dist.ProcessGroup | None = None
) -> tuple[Manifest, LazyState]:
    """A checkpoint's manifest and state, to be read piece by piece; every file was checked against
    the manifest, each rank of the group a share.

    Raises:
        CheckpointError: it is damaged; the first bad file is named. That a value is not finite is
            found when it is read.
    """
    ranks = Ranks(group)
    manifest = ranks.from_first(lambda: read_manifest(folder))
    share = _share(manifest, ranks)
    ranks.agreed(lambda: _look(folder, manifest, share))
    ranks.agreed(lambda: _refuse(checked(folder, share)))
    stored = HuggingFaceStorageReader(str(folder)).read_metadata()

    def read(kind: Kind, name: str, region: Region) -> Tensor:
        part = _room_for(kind, name, region, folder, manifest.model, stored)
        read_parts(folder, stored, {stored_name(kind, name): part}, {})
        if not all_finite(part.tensor):
            raise CheckpointError(
                f"{folder}: {kind} of {name} are not finite; use an earlier checkpoint"
            )
        return part.tensor

    dtype = read("weights", "model.layers.0.mlp.up_proj.weight", (slice(0, 0),) * 2).dtype
    return manifest, LazyState(**_standing(folder, manifest), read=read, dtype=dtype)


def _standing(folder: Path, manifest: Manifest) -> dict[str, Any]:
    known = {field.name: getattr(manifest, field.name) for field in fields(Standing)}
    return {**known, "lineage": certified_lineage(folder, manifest)}


def _share(manifest: Manifest, ranks: Ranks) -> dict[str, FileRecord]:
    """The files that this rank checks."""
    names = sorted(manifest.files)
    # In one piece each, so that on the layout that it was saved on a rank checks its own files.
    return {
        name: manifest.files[name]
        for index, name in enumerate(names)
        if index * ranks.count // len(names) == ranks.rank
    }


def _check_regions(folder: Path, model: ModelConfig, regions: Mapping[str, Region]) -> None:
    known = set(parameter_names(model))
    for name, region in regions.items():
        shape = parameter_of(name).shape(model) if name in known else None
        if shape is None or any(side.stop > size for side, size in zip(region, shape, strict=True)):
            raise ConfigError(
                f"{folder}: its model is not the run's ({name} is of shape {shape} there); resolve "
                "the run with the checkpoint's model, or give another run_dir"
            )


def _look(folder: Path, manifest: Manifest, share: Mapping[str, FileRecord]) -> None:
    """Find what is wrong without reading, before the reader stumbles over it."""
    seen = (misfit(folder / name, record) for name, record in share.items())
    _refuse(chain(filter(None, seen), strays(folder, manifest.files)))


def _refuse(problems: Iterator[str]) -> None:
    for problem in problems:
        raise CheckpointError(f"{problem}; use another checkpoint of the run") from None


def _read(
    folder: Path,
    model: ModelConfig,
    regions: Mapping[str, Region] | None,
    share: Mapping[str, FileRecord],
) -> dict[str, Part]:
    if regions is None:
        regions = {name: whole(parameter_of(name).shape(model)) for name in parameter_names(model)}
    try:
        stored = HuggingFaceStorageReader(str(folder)).read_metadata()
        parts = {
            stored_name(kind, name): _room_for(kind, name, region, folder, model, stored)
            for kind in KINDS
            for name, region in regions.items()
        }
        read_parts(folder, stored, parts, share)
    except Exception:
        # A damaged header is read before its file's checksum is known, and leads to anything.
        _refuse(problems(folder))
        raise
    return parts


def _room_for(
    kind: Kind, name: str, region: Region, folder: Path, model: ModelConfig, stored: Metadata
) -> Part:
    shape = parameter_of(name).shape(model)
    found = stored.state_dict_metadata.get(stored_name(kind, name))
    if not isinstance(found, TensorStorageMetadata) or tuple(found.size) != shape:
        raise CheckpointError(
            f"{folder}: tensor {stored_name(kind, name)!r} is missing or not of shape {shape}; "
            "this is a checkpoint of another model"
        )
    return Part(torch.empty(region_shape(region), dtype=found.properties.dtype), region, shape)
