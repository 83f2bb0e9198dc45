"""Where a run starts: its resolved configuration, and the state before its first step."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from teleflm.checkpoint.load import checkpoints, find_checkpoint, load_checkpoint
from teleflm.checkpoint.manifest import Manifest, manifest_digest, read_manifest
from teleflm.checkpoint.save import TOKENIZER
from teleflm.config.run import RunConfig, resolve_run
from teleflm.data.mixture import Mixture
from teleflm.data.tokenizer import Tokenizer
from teleflm.errors import CheckpointError, ConfigError
from teleflm.growth.event import Event
from teleflm.growth.grow import grow
from teleflm.growth.state import TrainingState
from teleflm.model.init import initial_state
from teleflm.model.region import Region
from teleflm.parallel.ranks import Ranks
from teleflm.training.growing import measured_distances, sample_tokens

# A resumed run must be the same run; these say only how long, how often, and on what memory.
_MAY_CHANGE = {
    "run_dir": None,
    "start_from": None,
    "training": {"steps", "micro_batch", "compile"},
    "checkpoint": None,
    "evaluation": None,
}


def resolve_config(data: dict[str, Any], source: str) -> RunConfig:
    """The run that a mapping describes; its model is that of the checkpoint it starts from.

    Raises:
        ConfigError, CheckpointError: naming the field or the path.
    """
    start_from = data.get("start_from")
    parent = None
    if isinstance(start_from, str):
        parent = read_manifest(find_checkpoint(Path(start_from))).model
    return resolve_run(data, source, parent)


def newest_whole_checkpoint(
    run_dir: Path,
    regions: Mapping[str, Region] | None = None,
    group: dist.ProcessGroup | None = None,
) -> tuple[Manifest, TrainingState] | None:
    """The newest checkpoint of a run that verifies; the ones passed over are named on stderr.

    All ranks of the group (see `load_checkpoint`) come to the same one, whatever regions they ask
    for. Nothing is deleted.

    Raises:
        CheckpointError: there are checkpoints, and every one is damaged.
        ConfigError: `regions` are those of another model.
    """
    ranks = Ranks(group)
    found = ranks.from_first(lambda: checkpoints(run_dir))
    for folder in reversed(found):
        try:
            return load_checkpoint(folder, regions, group)
        except CheckpointError as error:
            if ranks.first:
                print(f"passing over a damaged checkpoint: {error}", file=sys.stderr)
    if found:
        raise CheckpointError(
            f"{run_dir}: none of its {len(found)} checkpoints is whole; "
            "remove the folder, or give another run_dir, to start over"
        )
    return None


def check_same_run(config: RunConfig, saved: RunConfig | None, run_dir: Path) -> None:
    """Refuse to go on from a checkpoint under another configuration.

    Raises:
        ConfigError: naming the first key that differs, with both values.
    """
    if saved is None:
        return
    new, old = config.model_dump(), saved.model_dump()
    for key, value in new.items():
        allowed = _MAY_CHANGE.get(key, set())
        if allowed is None:
            continue
        if isinstance(value, dict) and isinstance(old[key], dict):
            pairs = {
                f"{key}.{k}": (old[key].get(k), v) for k, v in value.items() if k not in allowed
            }
        else:
            pairs = {key: (old[key], value)}
        for name, (before, now) in pairs.items():
            if before != now:
                raise ConfigError(
                    f"{run_dir}: its run has {name} = {before!r}, this one {now!r}; keep the "
                    "value to go on with it, or give another run_dir"
                )


def check_same_tokenizer(folder: Path, mixture: Mixture) -> None:
    """Refuse to train on other tokens than the weights know.

    Args:
        folder: the tokenizer that the weights were trained with; no such folder says nothing.
        mixture: the run's data.

    Raises:
        ConfigError: the data was made with another one.
    """
    if mixture.tokenizer is None or not folder.is_dir():
        return
    if Tokenizer.load(folder).fingerprint != mixture.tokenizer.fingerprint:
        raise ConfigError(
            f"data.path: made with another tokenizer than {folder}, which the weights were "
            "trained with; prepare the text with that one"
        )


def start_state(config: RunConfig, mixture: Mixture) -> TrainingState:
    """The state before the first step: fresh weights or a checkpoint's, grown where asked.

    Raises:
        CheckpointError: `start_from` is missing or damaged.
        ConfigError: it is of another model or tokenizer than the run.
        GrowthError: a growth that cannot be done.
    """
    parent = None
    if config.start_from is None:
        state = _fresh_state(config)
    else:
        folder = find_checkpoint(Path(config.start_from))
        state, parent = load_checkpoint(folder)[1], manifest_digest(folder)
        if state.model != config.model:
            raise ConfigError(
                f"start_from {folder}: its model is not the run's; resolve the run with the "
                "checkpoint's model, or grow to another one with growth.to"
            )
        check_same_tokenizer(folder / TOKENIZER, mixture)
        if config.growth is None and state.lineage[-1].step != state.step:
            state = state.with_event(_continued(state, config.seed, parent))
    if config.growth is None:
        return state
    distances = None
    if config.growth.place == "distance":
        longest = config.data.sequence_length
        distances = measured_distances(state, sample_tokens(mixture, state.model, longest))
    return grow(
        state,
        config.growth.to,
        ramp=config.growth.ramp,
        seed=config.seed,
        place=config.growth.place,
        distances=distances,
        parent=parent,
    )


def _fresh_state(config: RunConfig) -> TrainingState:
    weights = initial_state(config.model, config.seed)
    return TrainingState(
        model=config.model,
        weights=weights,
        exp_avg={name: torch.zeros_like(weight) for name, weight in weights.items()},
        exp_avg_sq={name: torch.zeros_like(weight) for name, weight in weights.items()},
        adam_steps=0,
        step=0,
        tokens=0,
        sequences=0,
        flops=0,
        lineage=(Event(operator="init", to=config.model, seed=config.seed),),
    )


def _continued(state: TrainingState, seed: int, parent: str) -> Event:
    return Event(
        operator="continue",
        source=state.model,
        to=state.model,
        step=state.step,
        tokens=state.tokens,
        sequences=state.sequences,
        flops=state.flops,
        seed=seed,
        parent=parent,
    )
