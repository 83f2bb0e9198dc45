"""What a rank does in a case of the growth suite: it grows a checkpoint."""

from pathlib import Path
from typing import Any

import pytest

from teleflm.checkpoint.load import find_checkpoint
from teleflm.checkpoint.manifest import read_manifest
from teleflm.config.base import build
from teleflm.config.growth import WidthConfig
from teleflm.config.series import SeriesConfig
from teleflm.growth.grow import Growth
from teleflm.series.run import run_series
from teleflm.training.growing import carry_out, grow_checkpoint, plan_growth
from tests.distributed.certifying import few_steps


def grow_to(parent: Path, out: Path, sizes: dict[str, Any]) -> None:
    """Clone a run's newest checkpoint to these sizes."""
    model = read_manifest(find_checkpoint(parent)).model.model_copy(update=sizes)
    width = WidthConfig.model_validate("clone")
    grow_checkpoint(parent, out, Growth(model, width, depth="zero", place="even", seed=5))


def grow_in_small_files(parent: Path, out: Path, sizes: dict[str, Any]) -> None:
    """The same, with enough files for every rank."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("teleflm.checkpoint.stream._FILE_BYTES", 60_000)
        patch.setattr("teleflm.checkpoint.folder._PIECE_BYTES", 7_000)
        grow_to(parent, out, sizes)


def grow_into_shards(parent: Path, out: Path, sizes: dict[str, Any]) -> None:
    """Into a Hugging Face folder, with enough files for every rank."""
    model = read_manifest(find_checkpoint(parent)).model.model_copy(update=sizes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("teleflm.checkpoint.hub_format._SHARD_BYTES", 60_000)
        carry_out(plan_growth(parent, Growth(model, seed=5), kind="llama"), out)


def run_stages(data: dict[str, Any]) -> None:
    """Run a series, whose certificates have short trajectories."""
    with few_steps():
        run_series(build(SeriesConfig, data, "the test"))
