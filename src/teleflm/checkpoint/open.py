"""Opening a state or a model by its path, whatever lies there."""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist

from teleflm.checkpoint.load import find_checkpoint, load_checkpoint, open_checkpoint
from teleflm.checkpoint.manifest import manifest_digest
from teleflm.checkpoint.pretrained import open_pretrained, read_pretrained
from teleflm.checkpoint.save import TOKENIZER
from teleflm.checkpoint.source import ModelSource
from teleflm.config.resolve import preset_names, resolve_model
from teleflm.config.run import RunConfig
from teleflm.growth.fold import folded
from teleflm.growth.ramp import ramp_at
from teleflm.growth.state import LazyState
from teleflm.model.init import build_model, initial_state
from teleflm.model.network import TeleFLM


@dataclass(frozen=True)
class Opened:
    """A state at a path, and what lies beside it.

    Attributes:
        state: to be read piece by piece.
        digest: SHA-256 that stands for all of it.
        tokenizer: a folder with its tokenizer files, None where there is none.
        config: the run that made it, None where no run did.
    """

    state: LazyState
    digest: str
    tokenizer: Path | None
    config: RunConfig | None


def open_state(path: Path) -> Opened:
    """The training state in a checkpoint, a run folder (its newest one) or a Hugging Face folder,
    whose moments are zero.

    Raises:
        CheckpointError: nothing there that can be read.
        ConfigError: a model folder of another architecture.
    """
    if (path / "config.json").is_file():
        state = open_pretrained(path)
        (imported,) = state.lineage
        assert imported.parent is not None
        tokenizer = path if (path / "tokenizer.json").is_file() else None
        return Opened(state, imported.parent, tokenizer, None)
    folder = find_checkpoint(path)
    manifest, state = open_checkpoint(folder)
    tokenizer = folder / TOKENIZER
    return Opened(
        state, manifest_digest(folder), tokenizer if tokenizer.is_dir() else None, manifest.config
    )


def open_model(path: Path, group: dist.ProcessGroup | None = None) -> ModelSource:
    """The ordinary model in a checkpoint, a run folder (its newest one) or a Hugging Face folder.

    A checkpoint inside a ramp is folded.

    Raises:
        CheckpointError: nothing there that can be read.
    """
    if (path / "config.json").is_file():
        return read_pretrained(path)
    folder = find_checkpoint(path)
    manifest, state = load_checkpoint(folder, group=group)
    ordinary = folded(state.lazy()).in_memory()
    tokenizer = folder / TOKENIZER
    return ModelSource(
        name=_name(folder),
        model=ordinary.model,
        state={
            name: weight.to(state.weights[name].dtype) for name, weight in ordinary.weights.items()
        },
        tokenizer=tokenizer if tokenizer.is_dir() else None,
        step=manifest.step,
        tokens=manifest.tokens,
        lineage=state.lineage,
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
