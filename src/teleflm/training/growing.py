"""Growing a checkpoint on disk."""

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from teleflm.checkpoint.load import find_checkpoint, load_checkpoint
from teleflm.checkpoint.manifest import MANIFEST, Manifest, manifest_digest
from teleflm.checkpoint.save import TOKENIZER, save_checkpoint
from teleflm.config.model import ModelConfig
from teleflm.config.run import DataConfig, OptimizerConfig
from teleflm.data.loader import Loader
from teleflm.data.mixture import Mixture, open_domains
from teleflm.errors import CheckpointError
from teleflm.growth.event import Event
from teleflm.growth.grow import grow
from teleflm.growth.maps import check_growth
from teleflm.growth.place import layer_distances
from teleflm.growth.state import TrainingState
from teleflm.training.learner import Learner

_ROWS, _LONGEST = 8, 512


def grow_checkpoint(
    source: Path,
    out: Path,
    to: ModelConfig,
    *,
    ramp: int,
    seed: int = 0,
    place: str | Sequence[int] = "distance",
    data: DataConfig | None = None,
    force: bool = False,
) -> Event:
    """Grow the checkpoint `source` (or a run folder's newest) and save the result as `out`.

    Args:
        source, out: from where to where.
        to: the target model.
        ramp, seed, place: see `teleflm.growth.grow.grow`.
        data: text to measure layers on; else that of the run, and random ids (which is said)
            where that is not at hand.
        force: replace what is at `out`.

    Returns:
        The growth, as it stands in the lineage.

    Raises:
        CheckpointError: `source` is damaged, or `out` exists.
        GrowthError: masks cannot reach `to`.
    """
    if out.exists() and not (out / MANIFEST).is_file():
        raise CheckpointError(
            f"{out}: exists and is no checkpoint, so it stays; give another place"
        )
    if out.exists() and not force:
        raise CheckpointError(f"{out}: exists; give another place, or --force to replace it")
    folder = find_checkpoint(source)
    manifest, state = load_checkpoint(folder)
    check_growth(state.model, to)
    distances = None
    if place == "distance":
        distances = measured_distances(state, _tokens(manifest, state.model, data))
    grown = grow(
        state,
        to,
        ramp=ramp,
        seed=seed,
        place=place,
        distances=distances,
        parent=manifest_digest(folder),
    )
    tokenizer = folder / TOKENIZER
    save_checkpoint(out, grown, None, tokenizer if tokenizer.is_dir() else None, force=force)
    return grown.lineage[-1]


def measured_distances(state: TrainingState, tokens: Tensor) -> list[float]:
    """How far each layer moves the stream on tokens (B, S), see `layer_distances`."""
    return layer_distances(Learner(state, OptimizerConfig()).network, tokens)


def sample_tokens(mixture: Mixture, model: ModelConfig, longest: int) -> Tensor:
    """Some rows (B, S) of a run's text, S at most `longest`."""
    loader = Loader(
        mixture.domains,
        seed=0,
        sequence_length=min(_LONGEST, model.max_position_embeddings, longest),
        global_batch=_ROWS,
        vocab_size=model.vocab_size,
    )
    return torch.from_numpy(loader.batch(0)[:, :-1])


def _tokens(manifest: Manifest, model: ModelConfig, data: DataConfig | None) -> Tensor:
    """Text to measure layers on: the given, else the run's own, else random ids."""
    own = manifest.config.data if manifest.config is not None else None
    longest = own.sequence_length if own is not None else _LONGEST
    if data is not None:
        return sample_tokens(open_domains(data.path, data.tokenizer), model, longest)
    if own is not None:
        paths = [own.path] if isinstance(own.path, str) else [path for path, _ in own.path.values()]
        if all(Path(path).is_dir() for path in paths):
            return sample_tokens(open_domains(own.path, own.tokenizer), model, longest)
    print(
        "the run's text is not at hand: layers are measured on random ids; --data names a store",
        file=sys.stderr,
    )
    length = min(_LONGEST, model.max_position_embeddings)
    generator = torch.Generator().manual_seed(0)
    return torch.randint(model.vocab_size, (_ROWS, length), generator=generator)
