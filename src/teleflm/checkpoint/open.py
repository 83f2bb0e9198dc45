"""Opening a state by its path, whatever lies there."""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist

from teleflm.checkpoint.load import find_checkpoint, open_checkpoint
from teleflm.checkpoint.manifest import manifest_digest, read_manifest
from teleflm.checkpoint.pretrained import CONFIG, open_pretrained
from teleflm.checkpoint.save import TOKENIZER
from teleflm.config.model import ModelConfig
from teleflm.config.resolve import preset_names, resolve_model
from teleflm.config.run import RunConfig
from teleflm.data.chat_template import find_template
from teleflm.data.tokenizer import check_tokenizer
from teleflm.growth.fold import folded
from teleflm.growth.state import LazyState
from teleflm.model.init import build_model, initial_state
from teleflm.model.network import TeleFLM
from teleflm.model.region import whole


@dataclass(frozen=True)
class Opened:
    """A state that can be read, and what lies beside it.

    Attributes:
        name: a short one, for messages and model cards.
        state: to be read piece by piece.
        digest: SHA-256 that stands for all that it is read from, None where nothing does.
        tokenizer: a folder with its tokenizer's files and special ids, as far as it has any.
        config: the run that made it, None where no run did.
    """

    name: str
    state: LazyState
    digest: str | None = None
    tokenizer: Path | None = None
    config: RunConfig | None = None

    @property
    def ordinary(self) -> LazyState:
        """The ordinary model that it is: inside a ramp its masks are folded, in float64."""
        return folded(self.state)

    @property
    def chat_template(self) -> str | None:
        """By which it is talked to, None where it has none."""
        return None if self.tokenizer is None else find_template(self.tokenizer)

    def network(self) -> TeleFLM:
        """The ordinary model in float32, read tensor by tensor."""
        ordinary = self.ordinary
        network = TeleFLM(ordinary.model)
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                parameter.copy_(ordinary.weight(name, whole(parameter.shape)))
        return network


def open_state(path: Path, group: dist.ProcessGroup | None = None) -> Opened:
    """The training state in a checkpoint, a run folder (its newest one) or a Hugging Face folder,
    whose moments are zero.

    Raises:
        CheckpointError: nothing there that can be read; that a value is not finite is found when it
            is read.
        ConfigError: a model folder of another architecture.
        DataError: a model folder with the tokenizer of another vocabulary.
    """
    if _is_model_folder(path):
        state = open_pretrained(path, group)
        (imported,) = state.lineage
        check_tokenizer(path, state.model.vocab_size)
        return Opened(path.resolve().name, state, imported.parent, path)
    folder = find_checkpoint(path)
    manifest, state = open_checkpoint(folder, group)
    beside = folder / TOKENIZER
    return Opened(
        name=_name(folder),
        state=state,
        digest=manifest_digest(folder),
        tokenizer=beside if beside.is_dir() else None,
        config=manifest.config,
    )


def model_at(path: Path) -> ModelConfig:
    """The model of what `open_state` opens there; no tensors are looked at.

    Raises:
        CheckpointError, ConfigError: see `open_state`.
    """
    if _is_model_folder(path):
        return resolve_model(str(path.resolve()))
    return read_manifest(find_checkpoint(path)).model


def _is_model_folder(path: Path) -> bool:
    """Whether it is a Hugging Face folder."""
    return (path / CONFIG).is_file()


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
    return open_state(Path(path)).network()
