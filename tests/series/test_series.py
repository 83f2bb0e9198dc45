"""A series of two stages: whatever stops it, the same command ends it as if nothing had been."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import teleflm.certificate.paths
from benchmarks.demo import promises
from teleflm.certificate.certify import certify
from teleflm.certificate.record import Certificate
from teleflm.checkpoint.load import find_checkpoint
from teleflm.checkpoint.open import load
from teleflm.config.base import build
from teleflm.config.series import SeriesConfig, load_series
from teleflm.data.store import TokenStore
from teleflm.errors import CheckFailedError, ConfigError, StoppedError
from teleflm.report.summary import read_summary
from teleflm.series import finish
from teleflm.series.run import run_series
from teleflm.training.hooks.base import Hook
from teleflm.training.loop import default_hooks
from tests.tiny import FIELDS, At, assert_same_run, poison, run_fields

STAGES = ["small", "large"]


def series(store: TokenStore, folder: Path) -> SeriesConfig:
    run = run_fields(store.path, folder)
    for key in ("run_dir", "model"):
        del run[key]
    run["training"]["dtype"] = "bf16"
    # Enough held-out text that the rounding of single tokens does not show.
    run["evaluation"]["tokens"] = 4000
    grown = {"hidden_size": 40, "num_hidden_layers": 3, "output_mult": 1.2}
    return build(
        SeriesConfig,
        {
            "series_dir": str(folder),
            "title": "Tiny",
            "exports": ["granite", "llama", "teleflm"],
            "run": run,
            "stages": [
                {"name": "small", "model": dict(FIELDS)},
                {"name": "large", "growth": {"to": grown, "ramp": 4, "place": "distance"}},
            ],
        },
        "tiny series",
    )


@pytest.fixture(scope="module")
def finished(store: TokenStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_series(series(store, tmp_path_factory.mktemp("series") / "whole"))


def written(folder: Path) -> dict[Path, int]:
    """When each checkpoint, certificate and export file was written."""
    found = [*folder.glob("*/**/*.safetensors"), *folder.glob("grown/*/*.json")]
    return {path.relative_to(folder): path.stat().st_mtime_ns for path in found}


def test_the_summary_is_what_was_done(finished: Path) -> None:
    summary = read_summary(finished)
    assert [stage.name for stage in summary.stages] == STAGES
    assert [stage.tokens for stage in summary.stages] == [6 * 4 * 16] * 2
    (growth,) = summary.growths
    assert growth.certificate is not None and growth.certificate.exact
    assert growth.loss_after == pytest.approx(growth.loss_before, rel=2e-5)
    assert summary.compute.ratio is not None and 0 < summary.compute.ratio < 1
    assert {export.format for export in summary.exports} == {"granite", "llama", "teleflm"}
    for export in summary.exports:
        assert export.max_relative_logit_error is not None
        assert export.max_relative_logit_error <= 1e-5
        assert load(finished / export.path).config.num_hidden_layers == 3
    assert [event.operator for event in summary.lineage] == ["init", "mask"]
    english = summary.data.domains["english"]
    assert english.tokens and english.bytes and english.held_out_tokens
    assert (finished / "report.html").exists()
    for name in STAGES:
        assert (finished / "stages" / name / "report.html").exists()


def test_a_stage_with_a_skipped_step_is_summed_up_from_its_start(
    store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, {4, 8})
    summary = read_summary(run_series(series(store, tmp_path / "series")))
    assert [(stage.first_step, stage.tokens) for stage in summary.stages] == [(0, 384), (6, 384)]
    assert [event.operator for event in summary.lineage] == ["init", "skip", "mask", "skip"]


def test_a_second_time_nothing_is_done_again(finished: Path, store: TokenStore) -> None:
    before = written(finished)
    run_series(series(store, finished))
    assert written(finished) == before


def test_stages_that_name_runs_are_the_same_series(
    finished: Path, store: TokenStore, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    plain = series(store, folder).model_dump(mode="json")
    parent = plain["stages"][0]["model"]
    for stage in plain["stages"]:
        # As it would be run alone: from a parent that it names.
        alone = {**plain["run"], "model": parent, **stage, "run_dir": "alone"}
        if "growth" in stage:
            alone["start_from"] = "elsewhere"
        del alone["name"]
        (tmp_path / f"{stage['name']}.yaml").write_text(yaml.safe_dump(alone))
    plain["stages"] = [{"name": name, "run": f"{name}.yaml"} for name in STAGES]
    del plain["run"]
    file = tmp_path / "series.yaml"
    file.write_text(yaml.safe_dump(plain))
    before = written(folder)
    run_series(load_series(file))
    assert written(folder) == before
    # And from the beginning.
    file.write_text(yaml.safe_dump({**plain, "series_dir": str(tmp_path / "anew")}))
    run_series(load_series(file))
    for name in STAGES:
        assert_same_run(tmp_path / "anew" / "stages" / name, finished / "stages" / name)


def test_the_benchmark_of_the_demo_reads_it(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text(encoding="utf-8"))
    checked = promises(summary)
    assert len(checked) == 4 + 1 + 3
    assert all(promise.holds for promise in checked if "last loss" not in promise.what)
    summary["growths"][0]["loss_after"] *= 1.001
    assert not promises(summary)[0].holds


def stop_in(
    monkeypatch: pytest.MonkeyPatch, stage: str, action: Callable[[], object], step: int = 3
) -> None:
    def hooks(title: str) -> list[Hook]:
        extra = [At(step, action)] if title == stage else []
        return [*default_hooks(title), *extra]

    monkeypatch.setattr(teleflm.series.run, "default_hooks", hooks)


@pytest.mark.parametrize("stage", STAGES)
def test_stopped_in_a_stage(
    finished: Path, store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    config = series(store, tmp_path / "stopped")
    with monkeypatch.context() as patch:
        stop_in(patch, stage, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(StoppedError):
            run_series(config)
    run_series(config)
    for name in STAGES:
        assert_same_run(tmp_path / "stopped" / "stages" / name, finished / "stages" / name)


@pytest.mark.parametrize(
    "lost",
    ["grown", "grown/large/certificate.json", "stages/large", "export/llama", "summary.json"],
)
def test_what_is_missing_is_made_again(
    finished: Path, store: TokenStore, tmp_path: Path, lost: str
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    path = folder / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    run_series(series(store, folder))
    assert_same_run(folder / "stages" / "large", finished / "stages" / "large")
    assert _without_clock(folder) == _without_clock(finished)


def _without_clock(folder: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    del summary["seconds"]
    for item in (*summary["stages"], *summary["growths"]):
        del item["seconds"]
    for growth in summary["growths"]:
        # Nor the digest: the library writes the header of the same tensors in any order.
        del growth["certificate"]["seconds"], growth["certificate"]["checkpoint"]
    return summary


@pytest.mark.parametrize(
    ("stage", "change", "words"),
    [
        (
            1,
            {"growth": {"to": {"hidden_size": 48}, "ramp": 4}},
            "hidden_size 40, the series now says 48",
        ),
        (1, {"growth": {"to": {"hidden_size": 40}, "ramp": 3}}, "ramp 4, the series now says 3"),
        (0, {"training": {"steps": 7}}, "step 6, the series now says 7"),
        (0, {"optimizer": {"learning_rate": 1e-3}}, "optimizer.learning_rate = 0.002"),
        (1, {"optimizer": {"learning_rate": 1e-3}}, "optimizer.learning_rate = 0.002"),
    ],
)
def test_another_series_in_the_same_folder_is_refused(
    finished: Path, store: TokenStore, tmp_path: Path, stage: int, change: Any, words: str
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    plain = series(store, folder).model_dump(mode="json")
    plain["stages"][stage] = {**plain["stages"][stage], **change}
    before = written(folder)
    with pytest.raises(ConfigError, match=words):
        run_series(build(SeriesConfig, plain, "changed"))
    assert written(folder) == before


def test_a_longer_last_stage_is_exported_anew(
    finished: Path, store: TokenStore, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    plain = series(store, folder).model_dump(mode="json")
    plain["stages"][1]["training"] = {"steps": 9}
    run_series(build(SeriesConfig, plain, "longer"))
    summary = read_summary(folder)
    assert summary.stages[1].last_step == 6 + 9
    errors = [export.max_relative_logit_error for export in summary.exports]
    assert all(error is not None and error <= 1e-5 for error in errors)


def test_a_damaged_last_checkpoint_is_made_again(
    finished: Path, store: TokenStore, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    for name in STAGES:
        (tensors,) = find_checkpoint(folder / "stages" / name).glob("*.safetensors")
        tensors.write_bytes(tensors.read_bytes()[:-9] + bytes(9))
    run_series(series(store, folder))
    for name in STAGES:
        assert_same_run(folder / "stages" / name, finished / "stages" / name)


def test_a_stop_at_the_last_step_of_a_stage_stops_the_series(
    store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_in(monkeypatch, "small", lambda: os.kill(os.getpid(), signal.SIGINT), step=6)
    with pytest.raises(StoppedError, match="saved at step 6 of 6"):
        run_series(series(store, tmp_path / "s"))
    assert not (tmp_path / "s" / "grown").exists()


def test_a_wrong_export_is_said(
    store: TokenStore, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    monkeypatch.setattr(finish, "relative_error", lambda *_: 0.3)
    with pytest.raises(CheckFailedError, match="export/granite: read back"):
        run_series(series(store, folder))


def test_a_growth_that_is_not_exact_is_not_trained_on(
    store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def inexact(parent: Any, child: Any, **options: Any) -> Certificate:
        moments = {name: torch.zeros_like(tensor) for name, tensor in child.exp_avg.items()}
        return certify(parent, replace(child, exp_avg=moments), **options)

    monkeypatch.setattr(teleflm.certificate.paths, "certify", inexact)
    folder = tmp_path / "bad"
    for _ in range(2):  # and it is not forgotten
        with pytest.raises(CheckFailedError, match="the growth to large is not exact"):
            run_series(series(store, folder))
    assert find_checkpoint(folder / "stages" / "small")
    assert not (folder / "stages" / "large").exists()
