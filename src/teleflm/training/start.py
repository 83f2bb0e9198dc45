"""Where a run starts: its resolved configuration, and the state before its first step."""

import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from teleflm.checkpoint.load import (
    checkpoints,
    find_checkpoint,
    load_checkpoint,
    open_checkpoint,
)
from teleflm.checkpoint.manifest import Manifest, manifest_digest, read_manifest
from teleflm.checkpoint.save import TOKENIZER
from teleflm.config.growth import GrowthConfig
from teleflm.config.model import ModelConfig
from teleflm.config.run import RunConfig, resolve_run
from teleflm.data.chat_tokenizer import goes_on_from
from teleflm.data.mixture import Mixture
from teleflm.data.tokenizer import Tokenizer
from teleflm.data.tokenizer_files import has_tokenizer
from teleflm.errors import CheckpointError, ConfigError, DataError
from teleflm.generation.generate import check_prompt
from teleflm.growth.event import Event, run_start
from teleflm.growth.grow import Growth, grow_lazily
from teleflm.growth.state import Kind, LazyState, TrainingState
from teleflm.model.init import initial_value
from teleflm.model.region import Region, region_shape
from teleflm.parallel.ranks import Ranks
from teleflm.training.growing import measured_distances, sample_tokens

# A resumed run must be the same run; these say only how long, how often, on what memory, and what
# to do about steps that go wrong from here on.
_MAY_CHANGE = {
    "run_dir": None,
    "start_from": None,
    "training": {"steps", "micro_batch", "compile", "dtype"},
    "checkpoint": None,
    "evaluation": None,
    "parallel": None,
    "faults": None,
    "spikes": None,
}
# Where the data lies, which says nothing once its content is known.
_PLACES = {"path", "tokenizer"}


def resolve_config(data: dict[str, Any], source: str) -> RunConfig:
    """The run that a mapping describes; its model is that of the checkpoint it starts from.

    Raises:
        ConfigError, CheckpointError: naming the field or the path.
    """
    start_from = data.get("start_from")
    parent = None
    if start_from is not None:
        if not isinstance(start_from, str):
            raise ConfigError(f"{source}: start_from: {start_from!r} is no path; quote it if it is")
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


def check_same_run(config: RunConfig, manifest: Manifest, run_dir: Path) -> None:
    """Refuse to go on from a checkpoint under another configuration.

    Where its data lies is no part of that if the checkpoint says what it is, see `check_same_data`.

    Raises:
        ConfigError: naming the first key that differs, with both values.
    """
    saved = manifest.config
    if saved is None:
        return
    before, now = saved.training.precision, config.training.precision
    if before != now and "fp64" in (before, now):
        raise ConfigError(
            f"{run_dir}: its run has training.dtype = {before!r}, this one {now!r}, and its master "
            "weights are of another precision; keep the value to go on with it, or give another "
            "run_dir"
        )
    new, old = config.model_dump(), saved.model_dump()
    for key, value in new.items():
        allowed = _MAY_CHANGE.get(key, set())
        if key == "data" and manifest.data is not None:
            allowed = _PLACES
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

    Tokens of a chat template that took rows which waited for them are no others.

    Args:
        folder: the tokenizer that the weights were trained with; no such folder says nothing.
        mixture: the run's data.

    Raises:
        ConfigError: the data was made with another one.
    """
    if mixture.tokenizer is None or not has_tokenizer(folder):
        return
    if not goes_on_from(mixture.tokenizer, Tokenizer.load(folder)):
        raise ConfigError(
            f"data.path: made with another tokenizer than {folder}, which the weights were "
            "trained with; prepare the text with that one"
        )


def check_prompts(config: RunConfig, mixture: Mixture, ranks: Ranks) -> None:
    """Refuse prompts that no evaluation could continue, and say where none is.

    Raises:
        ConfigError: one is longer than the model's context, has a token outside its vocabulary, or
            is empty where no token begins or ends a text.
    """
    prompts, tokenizer = config.evaluation.prompts, mixture.tokenizer
    if not prompts:
        return
    if tokenizer is None or ranks.many:
        why = "on one process only" if ranks.many else "with a tokenizer only (data.tokenizer)"
        if ranks.first:
            print(f"evaluation.prompts: they are continued {why}; left out", file=sys.stderr)
        return
    model = config.final_model
    for index, prompt in enumerate(prompts):
        try:
            ids = tokenizer.encode_prompt(prompt)
            check_prompt(ids, model.vocab_size, model.max_position_embeddings)
        except DataError as error:
            raise ConfigError(f"evaluation.prompts[{index}]: {error}") from None


def start_state(
    config: RunConfig,
    mixture: Mixture,
    ranks: Ranks,
    regions: Mapping[str, Region] | None = None,
) -> TrainingState:
    """The state before the first step: fresh weights or a checkpoint's, grown where asked.

    Args:
        config: the run.
        mixture: its data, for measuring layers.
        ranks: all of the run's; each calls this.
        regions: what this one is to hold of the run's final model; all of it where None.

    Raises:
        CheckpointError: `start_from` is missing or damaged.
        ConfigError: it is of another model or tokenizer than the run.
        GrowthError: a growth that cannot be done.
    """
    folder = None
    if config.start_from is not None:
        folder = find_checkpoint(Path(config.start_from))
        if read_manifest(folder).model != config.model:
            raise ConfigError(
                f"start_from {folder}: its model is not the run's; resolve the run with the "
                "checkpoint's model, or grow to another one with growth.to"
            )
        check_same_tokenizer(folder / TOKENIZER, mixture)
    if config.growth is not None:
        return _grown_state(config, config.growth, mixture, folder, ranks, regions)
    if folder is None:
        return ranks.agreed(lambda: fresh_state(config.model, config.seed).in_memory(regions))
    state = load_checkpoint(folder, regions)[1]
    if run_start(state.lineage).step != state.step:
        digest = manifest_digest(folder)
        model = state.model
        event = state.event("continue", model, source=model, seed=config.seed, parent=digest)
        state = state.with_event(event)
    return state


def _grown_state(
    config: RunConfig,
    growth: GrowthConfig,
    mixture: Mixture,
    folder: Path | None,
    ranks: Ranks,
    regions: Mapping[str, Region] | None,
) -> TrainingState:
    # Each rank reads of the parent what it needs for its regions.
    state = fresh_state(config.model, config.seed)
    if folder is not None:
        state = open_checkpoint(folder)[1]
    how = replace(
        Growth.of(growth, config.seed),
        parent=manifest_digest(folder) if folder is not None else None,
    )
    if growth.place == "distance":
        tokens = sample_tokens(mixture, config.model, config.data.sequence_length)
        # One rank measures for all: its figures to the last digit decide what follows.
        distances = ranks.from_first(partial(measured_distances, state, tokens))
        how = replace(how, distances=distances)
    grown = grow_lazily(state, how)
    return ranks.agreed(lambda: grown.in_memory(regions))


def fresh_state(model: ModelConfig, seed: int) -> LazyState:
    """The state of a model that has learnt nothing, whose pieces are made as they are read."""

    def read(kind: Kind, name: str, region: Region) -> Tensor:
        if kind == "weights":
            return initial_value(model, name, seed, region)
        return torch.zeros(region_shape(region))

    event = Event(operator="init", to=model, seed=seed)
    return LazyState.untrained(event, read, torch.float32)
