"""Loading: our checkpoints, and any model by its path."""

import warnings
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import HuggingFaceStorageReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from teleflm.checkpoint.manifest import MANIFEST, Manifest, problems, read_manifest
from teleflm.checkpoint.save import FIRST_MOMENT, SECOND_MOMENT, TOKENIZER
from teleflm.checkpoint.source import ModelSource
from teleflm.config.resolve import preset_names, resolve_model
from teleflm.errors import CheckpointError
from teleflm.growth.fold import fold
from teleflm.growth.ramp import ramp_at
from teleflm.growth.state import Tensors, TrainingState
from teleflm.model.axes import parameter_names, parameter_of
from teleflm.model.init import build_model, initial_state
from teleflm.model.network import TeleFLM


def checkpoints(run_dir: Path) -> list[Path]:
    """The finished checkpoints of a run folder, oldest first."""
    # Eight digits or more, see `step_folder`; by number, as the name's order ends at 1e8 steps.
    found = [p for p in (run_dir / "checkpoints").glob("step-*") if p.name[5:].isdecimal()]
    return sorted(found, key=lambda path: int(path.name[5:]))


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
    raise CheckpointError(f"{path}: neither a checkpoint (no {MANIFEST}) nor a run folder with one")


def load_checkpoint(folder: Path) -> tuple[Manifest, TrainingState]:
    """A checkpoint's manifest and training state, every file checked against the manifest.

    Raises:
        CheckpointError: it is damaged; the first bad file is named.
    """
    manifest = read_manifest(folder)
    for problem in problems(folder):
        raise CheckpointError(f"{problem}; use another checkpoint of the run")
    names = list(parameter_names(manifest.model))
    weights, first, second = (
        _read_tensors(folder, manifest, prefix, names)
        for prefix in ("", FIRST_MOMENT, SECOND_MOMENT)
    )
    state = TrainingState(
        model=manifest.model,
        weights=weights,
        exp_avg=first,
        exp_avg_sq=second,
        adam_steps=manifest.adam_steps,
        step=manifest.step,
        tokens=manifest.tokens,
        sequences=manifest.sequences,
        flops=manifest.flops,
        lineage=manifest.lineage,
    )
    return manifest, state


def _read_tensors(folder: Path, manifest: Manifest, prefix: str, names: list[str]) -> Tensors:
    reader = HuggingFaceStorageReader(str(folder))
    stored = reader.read_metadata().state_dict_metadata
    tensors: Tensors = {}
    for name in names:
        found = stored.get(prefix + name)
        shape = parameter_of(name).shape(manifest.model)
        if not isinstance(found, TensorStorageMetadata) or tuple(found.size) != shape:
            raise CheckpointError(
                f"{folder}: tensor {prefix + name!r} is missing or not of shape {shape}; "
                "this is a checkpoint of another model"
            )
        tensors[prefix + name] = torch.empty(shape, dtype=found.properties.dtype)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        dcp.load(tensors, storage_reader=reader, no_dist=True)
    return {name: tensors[prefix + name] for name in names}


def open_model(path: Path) -> ModelSource:
    """The ordinary model in a checkpoint, a run folder (its newest one) or a Hugging Face folder.

    A checkpoint inside a ramp is folded.

    Raises:
        CheckpointError: nothing there that can be read.
    """
    if (path / "config.json").is_file():
        from teleflm.checkpoint.pretrained import read_pretrained

        return read_pretrained(path)
    folder = find_checkpoint(path)
    manifest, state = load_checkpoint(folder)
    model, weights = fold(state.model, state.weights, state.lineage, state.step)
    tokenizer = folder / TOKENIZER
    return ModelSource(
        name=_name(folder),
        model=model,
        state=weights,
        tokenizer=tokenizer if tokenizer.is_dir() else None,
        step=manifest.step,
        tokens=manifest.tokens,
        lineage=manifest.lineage,
        ramp=ramp_at(state.model, state.lineage, state.step).progress,
    )


def _name(folder: Path) -> str:
    """`run/step-00000010` for a run's checkpoint, else the folder's own name."""
    folder = folder.resolve()
    if folder.parent.name == "checkpoints":
        return f"{folder.parent.parent.name}/{folder.name}"
    return folder.name


def load(path: str | Path) -> TeleFLM:
    """A model in float32 from a preset's name (fresh weights), a checkpoint or a model folder.

    Raises:
        CheckpointError: nothing there that can be read.
        ConfigError: a model folder of another architecture.
    """
    if str(path) in preset_names():
        model = resolve_model(str(path))
        return build_model(model, initial_state(model, seed=0), torch.float32)
    source = open_model(Path(path))
    return build_model(source.model, source.state, torch.float32)
