"""Whether runs differ in their size alone, so that one law has their losses."""

from collections.abc import Iterator, Sequence
from itertools import chain, pairwise
from math import isfinite
from typing import Any

from teleflm.checkpoint.manifest import Manifest
from teleflm.config.model import LAYER_KINDS, ModelConfig
from teleflm.config.resolve import resolve_model
from teleflm.config.run import RunConfig
from teleflm.errors import DataError
from teleflm.growth.plan import SIZES
from teleflm.prediction.runs import FinishedRun, Kind
from teleflm.training.same_data import difference

# What a model's size is made of, and what its loss does not depend on.
_SIZES = {*chain.from_iterable(SIZES.values()), "max_position_embeddings", *LAYER_KINDS}
_LENGTHS = ("training.steps", "schedule.total_steps")
_WHY = {"num_hidden_layers": "µP carries learning rates from width to width, not over depths"}


def check_alike(runs: Sequence[FinishedRun], of_one_length: bool = True) -> list[str]:
    """Refuse runs whose losses do not lie on one law.

    Args:
        runs: two or more.
        of_one_length: whether they are to have as many steps as each other.

    Returns:
        What else is different, to be told.

    Raises:
        DataError: naming the two runs and what is different.
    """
    first = runs[0]
    for other in runs[1:]:
        for found in _differences(first, other, of_one_length):
            raise DataError(
                f"{other.path}: {found}; a law is of runs that differ in their size and seed "
                "alone, leave one of the two out"
            )
    for index, run in enumerate(runs):
        for other in runs[index + 1 :]:
            if _sample(run) == _sample(other):
                raise DataError(
                    f"{other.path}: has the model and the seed {run.config.seed} of {run.path}, "
                    "and says nothing new; leave it out, or give it another seed"
                )
    return [*_told(runs), *_skipped(runs)]


def _differences(first: FinishedRun, other: FinishedRun, of_one_length: bool) -> Iterator[str]:
    """What makes the losses of two runs incomparable."""
    values, others = (_recipe(run.config) for run in (first, other))
    for key, value in values.items():
        if others[key] != value and (of_one_length or key not in _LENGTHS):
            yield f"{key} is {others[key]}, and {value} in {first.path}"
    origins = [_origin(run.manifest) for run in (first, other)]
    if origins[0] != origins[1]:
        yield f"it came to be by {origins[1]}, {first.path} by {origins[0]}"
    if of_one_length and first.manifest.tokens != other.manifest.tokens:
        yield (
            f"has read {other.manifest.tokens:,} tokens, {first.path} has {first.manifest.tokens:,}"
        )
    there, here = first.manifest.data, other.manifest.data
    if there is None or here is None:
        untold = first if there is None else other
        yield f"the checkpoint of {untold.path} does not say what data it was trained on"
    elif found := difference(there, here):
        yield f"not the data of {first.path}: {found}"


def _sample(run: FinishedRun) -> tuple[ModelConfig, int, int]:
    """What makes it another one among runs that are alike."""
    return run.manifest.model, run.manifest.tokens, run.config.seed


def _recipe(config: RunConfig) -> dict[str, Any]:
    """What has to be the same, by its key."""
    return {
        "training.steps": config.training.steps,
        "training.global_batch": config.training.global_batch,
        "data.sequence_length": config.data.sequence_length,
        **{f"schedule.{key}": value for key, value in config.schedule.model_dump().items()},
    }


def _origin(manifest: Manifest) -> str:
    """How a run's model came to be."""
    events = [event for event in manifest.lineage if event.starts_run]
    return ", ".join(f"{event.operator} at step {event.step}" for event in events)


def _told(runs: Sequence[FinishedRun]) -> Iterator[str]:
    """Differences that a user may want, or not know of."""
    tables = [_details(run) for run in runs]
    for key, value in tables[0].items():
        for run, table in zip(runs, tables, strict=True):
            if table[key] != value:
                places = f"{value} in {runs[0].path} and {table[key]} in {run.path}"
                yield f"{key} is {places}; {_why(key)}"
                break


def _why(key: str) -> str:
    return _WHY.get(key, "the law does not know of it")


def _details(run: FinishedRun) -> dict[str, Any]:
    model = run.manifest.model.model_dump(exclude=_SIZES)
    optimizer = run.config.optimizer.model_dump()
    return {**model, **{f"optimizer.{key}": value for key, value in optimizer.items()}}


def _skipped(runs: Sequence[FinishedRun]) -> Iterator[str]:
    for run in runs:
        if skipped := sum(bool(row.get("skipped")) for row in run.trace.metrics):
            yield f"{run.path} skipped {skipped:,} of its steps"


def common_kind(runs: Sequence[FinishedRun]) -> Kind:
    """The loss that all have at their ends: held-out, of the same text, or else the training's."""
    same = all(_held_out(run) == _held_out(other) for run, other in pairwise(runs))
    return "held-out" if same and all(map(_ends_with_evaluation, runs)) else "training"


def _held_out(run: FinishedRun) -> tuple[int, dict[str, str | None]]:
    """What a run is evaluated on."""
    sources = run.manifest.data or {}
    texts = {name: source.held_out for name, source in sources.items()}
    return run.config.evaluation.tokens, texts


def _ends_with_evaluation(run: FinishedRun) -> bool:
    rows = run.trace.evaluations
    return bool(rows) and rows[-1]["step"] == run.manifest.step and isfinite(rows[-1]["loss"])


def target(spec: str, runs: Sequence[FinishedRun]) -> tuple[ModelConfig, list[str]]:
    """The model to predict, of the runs' vocabulary where MODEL leaves it open.

    Returns:
        It, and in what it differs from the largest of the runs beside its size.

    Raises:
        ConfigError: no such MODEL.
        DataError: its vocabulary is another one.
    """
    largest = max(runs, key=lambda run: run.size).manifest.model
    model = resolve_model(spec)
    if "vocab_size" not in model.model_fields_set:
        model = model.model_copy(update={"vocab_size": largest.vocab_size})
    if model.vocab_size != largest.vocab_size:
        raise DataError(
            f"--at {spec}: has a vocabulary of {model.vocab_size:,} tokens, the runs have "
            f"{largest.vocab_size:,}: losses by token of one say nothing of the other; leave "
            "vocab_size out, or set it to that"
        )
    mine, theirs = (each.model_dump(exclude=_SIZES) for each in (model, largest))
    told = [
        f"{key} of {spec} is {value}, and {theirs[key]} in the runs; {_why(key)}"
        for key, value in mine.items()
        if value != theirs[key]
    ]
    return model, told
