"""`teleflm series`: train → grow → certify → train …, resumable at every point.

Each piece of work ends in a folder or file that is written aside and renamed: what is there is
done, what is missing is done (again).
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

from teleflm.certificate.certify import certify
from teleflm.checkpoint.load import checkpoints, load_checkpoint
from teleflm.checkpoint.manifest import read_manifest
from teleflm.config.run import RunConfig, resolve_run
from teleflm.config.series import SeriesConfig
from teleflm.errors import CheckFailedError
from teleflm.files import write_whole
from teleflm.series.finish import finish_series
from teleflm.series.layout import SeriesLayout
from teleflm.training.growing import grow_checkpoint
from teleflm.training.lock import locked
from teleflm.training.loop import default_hooks, train


def run_series(config: SeriesConfig) -> Path:
    """Run a series to its end, or go on with it.

    Returns:
        The series folder, with `summary.json` and `report.html`.

    Raises:
        CheckFailedError: a growth's certificate says that it is not exact.
        TeleflmError: as `train`, `grow` and `export` raise; what was finished stays.
    """
    layout = SeriesLayout(Path(config.series_dir), config.stage_names())
    with locked(layout.root):
        for index in range(len(layout.stages)):
            if index:
                _grow_stage(config, layout, index)
                _certify_stage(config, layout, index)
            _train_stage(config, layout, index)
        finish_series(config, layout)
    return layout.root


def _train_stage(config: SeriesConfig, layout: SeriesLayout, index: int) -> None:
    data, name = config.stage_run(index), layout.stages[index]
    data["run_dir"] = str(layout.run_dir(index))
    parent = None
    if index:
        # The growth is made and certified already: the run starts from it as it is.
        del data["growth"]
        data["start_from"] = str(layout.grown(index))
        parent = read_manifest(layout.grown(index)).model
    run = resolve_run(data, f"stage {name}", parent)
    if _is_finished(run):
        _say(f"{name}: trained already")
        return
    _say(f"{name}: training {run.training.steps} steps")
    train(run, default_hooks(name))


def _is_finished(run: RunConfig) -> bool:
    found = checkpoints(Path(run.run_dir))
    if not found:
        return False
    manifest = read_manifest(found[-1])
    return manifest.step >= manifest.lineage[-1].step + run.training.steps


def _grow_stage(config: SeriesConfig, layout: SeriesLayout, index: int) -> None:
    if layout.grown(index).exists():
        return
    source, name = layout.last(index - 1), layout.stages[index]
    data = {**config.stage_run(index), "run_dir": str(layout.run_dir(index))}
    run = resolve_run(data, f"stage {name}", read_manifest(source).model)
    assert run.growth is not None, "SeriesConfig requires a growth in every later stage"
    _say(f"{name}: growing {layout.stages[index - 1]}")
    grow_checkpoint(
        source,
        layout.grown(index),
        run.growth.to,
        ramp=run.growth.ramp,
        seed=run.seed,
        place=run.growth.place,
        data=run.data,
    )


def _certify_stage(config: SeriesConfig, layout: SeriesLayout, index: int) -> None:
    path, name = layout.certificate(index), layout.stages[index]
    if not path.exists():
        _say(f"{name}: certifying the growth")
        started = time.monotonic()
        parent_manifest, parent = load_checkpoint(layout.last(index - 1))
        _, child = load_checkpoint(layout.grown(index))
        run = parent_manifest.config
        certificate = certify(parent, child, optimizer=run.optimizer if run else None)
        record = {**certificate.to_json(), "seconds": time.monotonic() - started}
        write_whole(path, json.dumps(record, indent=1))
    measured: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    _say(
        f"{name}: logits within {measured['function']['max_relative_logit_error']:.1e}, "
        f"{measured['trajectory']['steps']} steps within "
        f"{measured['trajectory']['max_relative_loss_difference']:.1e} of the parent"
    )
    if not measured["exact"]:
        raise CheckFailedError(
            f"{path}: the growth to {name} is not exact; do not train on from it, and report "
            "this file"
        )


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
