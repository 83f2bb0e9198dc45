"""`teleflm series`: train → grow → certify → train …, resumable at every point.

Each piece of work ends in a folder or file that is written aside and renamed: what is there is
done, what is missing is done (again), and what was done from something else is refused.
"""

import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from teleflm.certificate.paths import certify_paths
from teleflm.checkpoint.certified import keep_certificate, kept_certificate
from teleflm.checkpoint.manifest import read_manifest
from teleflm.config.model import ModelConfig
from teleflm.config.run import RunConfig, resolve_run
from teleflm.config.series import SeriesConfig
from teleflm.errors import CheckFailedError, ConfigError
from teleflm.growth.event import newest_growth
from teleflm.growth.grow import Growth
from teleflm.growth.plan import growth_steps
from teleflm.parallel.ranks import Ranks
from teleflm.parallel.world import world
from teleflm.series.finish import finish_series
from teleflm.series.layout import SeriesLayout
from teleflm.training.growing import grow_checkpoint
from teleflm.training.lock import locked
from teleflm.training.loop import default_hooks, train


def run_series(config: SeriesConfig) -> Path:
    """Run a series to its end, or go on with it; under torchrun each stage on its own layout.

    Returns:
        The series folder, with `summary.json` and `report.html`.

    Raises:
        CheckFailedError: a growth's certificate says that it is not exact.
        ConfigError: something done earlier is of another configuration.
        TeleflmError: as `train`, `grow` and `export` raise; what was finished stays.
    """
    layout = SeriesLayout(Path(config.series_dir), config.stage_names())
    with world() as (ranks, device), locked(layout.root, ranks):
        # Of the first rank by itself, to load checkpoints in.
        alone = dist.new_group([0], backend="gloo") if ranks.many else None
        ranks.from_first(lambda: _check_same_growths(config, layout))
        for index in range(len(layout.stages)):
            if index:
                _ready_stage(config, layout, index, ranks, device)
            _train_stage(config, layout, index, ranks)
        ranks.from_first(lambda: finish_series(config, layout, alone))
    return layout.root


def _train_stage(config: SeriesConfig, layout: SeriesLayout, index: int, ranks: Ranks) -> None:
    data, name = config.stage_run(index), layout.stages[index]
    data["run_dir"] = str(layout.run_dir(index))
    parent = None
    if index:
        # The growth is made and certified already: the run starts from it as it is.
        del data["growth"]
        data.pop("model", None)
        data["start_from"] = str(layout.grown(index))
        parent = read_manifest(layout.grown(index)).model
    run = resolve_run(data, f"stage {name}", parent)
    if ranks.first:
        _say(f"{name}: {run.training.steps} steps of training")
    train(run, default_hooks(name))


def _ready_stage(
    config: SeriesConfig, layout: SeriesLayout, index: int, ranks: Ranks, device: torch.device
) -> None:
    """See that the stage's model is grown and certified."""
    grown = layout.grown(index)
    if not ranks.from_first(grown.exists):
        _grow_stage(config, layout, index, ranks)
    measured = ranks.from_first(lambda: kept_certificate(grown))
    if measured is None:
        measured = _certify_stage(layout, index, ranks, device)
    ranks.from_first(lambda: _judge(measured, layout, index))


def _grow_stage(config: SeriesConfig, layout: SeriesLayout, index: int, ranks: Ranks) -> None:
    source, name = layout.last(index - 1), layout.stages[index]
    run = _grown_run(config, layout, index, read_manifest(source).model)
    assert run.growth is not None, "SeriesConfig requires a growth in every later stage"
    if ranks.first:
        _say(f"{name}: growing {layout.stages[index - 1]}")
    grow_checkpoint(
        source,
        layout.grown(index),
        Growth.of(run.growth, run.seed),
        data=run.data,
    )


def _grown_run(
    config: SeriesConfig, layout: SeriesLayout, index: int, parent: ModelConfig
) -> RunConfig:
    """A later stage's run with its growth, from `parent`."""
    data = {**config.stage_run(index), "run_dir": str(layout.run_dir(index))}
    return resolve_run(data, f"stage {layout.stages[index]}", parent)


def _check_same_growths(config: SeriesConfig, layout: SeriesLayout) -> None:
    """Refuse to go on from growths that were made by another SERIES.yaml.

    Raises:
        ConfigError: naming what differs.
    """
    for index in range(1, len(layout.stages)):
        grown = layout.grown(index)
        if not grown.exists():
            continue
        lineage = read_manifest(grown).lineage
        events = newest_growth(lineage)
        run = _grown_run(config, layout, index, lineage[-len(events) - 1].to)
        assert run.growth is not None, "SeriesConfig requires a growth in every later stage"
        earlier = (config.stage_run(i).get("training", {}) for i in range(index))
        steps = sum(training.get("steps", 0) for training in earlier)
        how = run.growth
        planned = growth_steps(run.model, how.to, how.width, how.depth)
        operators = [[step.operator for step in some] for some in (events, planned)]
        pairs: dict[str, tuple[Any, Any]] = {
            "step": (events[-1].step, steps),
            "operators": (operators[0], operators[1]),
            "seed": (events[-1].seed, run.seed),
        }
        for event in events:
            if event.operator == "mask":
                pairs["ramp"] = (event.ramp, how.ramp)
            if event.operator == "clone":
                pairs["symmetry"] = (event.symmetry, how.symmetry)
        target = planned[-1].child.model_dump()
        pairs |= {key: (old, target[key]) for key, old in events[-1].to.model_dump().items()}
        for key, (old, new) in pairs.items():
            if old != new:
                raise ConfigError(
                    f"{grown}: was grown with {key} {old!r}, the series now says {new!r}; move "
                    f"that folder and {layout.run_dir(index)} away to do them again, or give "
                    "another series_dir"
                )


def _certify_stage(
    layout: SeriesLayout, index: int, ranks: Ranks, device: torch.device
) -> dict[str, Any]:
    grown = layout.grown(index)
    if ranks.first:
        _say(f"{layout.stages[index]}: certifying the growth")
    started = time.monotonic()
    certificate = certify_paths(layout.last(index - 1), grown, device=device)
    figures = {**certificate.to_json(), "seconds": time.monotonic() - started}
    return ranks.from_first(lambda: keep_certificate(grown, figures))


def _judge(measured: dict[str, Any], layout: SeriesLayout, index: int) -> None:
    """Say what was measured, and go no further where it should not be."""
    name = layout.stages[index]
    trajectory = measured["trajectory"]
    held = (
        f", {trajectory['steps']} steps within {trajectory['max_relative_loss_difference']:.1e} of "
        "the parent"
        if trajectory
        else ""
    )
    _say(
        f"{name}: logits within {measured['function']['max_relative_logit_error']:.1e} of the "
        f"parent's{held}"
    )
    if not measured["exact"] and measured["promised_exact"]:
        raise CheckFailedError(
            f"{layout.grown(index)}: the growth to {name} is not exact; do not train on from it, "
            "and report its certificate.json"
        )


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
