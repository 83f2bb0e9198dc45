"""The page of one run."""

import json
import shutil
from pathlib import Path

import pytest

from teleflm.report.run import write_run_report
from tests.report.made_up import RAMP, STEPS, write_lines
from tests.report.page import read_page


@pytest.fixture
def run_dir(series_dir: Path, tmp_path: Path) -> Path:
    """The last run of the series, which begins with a growth."""
    return Path(shutil.copytree(series_dir / "stages" / "nano-1t", tmp_path / "run"))


def _rows(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_finished_run(run_dir: Path) -> None:
    page = read_page(write_run_report(run_dir))
    assert f"trained for all {STEPS['nano-1t']} steps on 344 K tokens" in page.text
    assert "68,589,760" in page.text and "masks opening" in page.text
    assert len(page.images) == 8 and all(page.images)
    assert "话说天下大势" in page.text


def test_a_run_without_a_growth_shows_none(series_dir: Path, tmp_path: Path) -> None:
    run = shutil.copytree(series_dir / "stages" / "nano-52b", tmp_path / "run")
    page = read_page(write_run_report(Path(run)))
    assert "masks opening" not in page.text


def test_a_run_that_has_not_begun(run_dir: Path) -> None:
    for name in ("metrics", "evaluation", "samples"):
        (run_dir / f"{name}.jsonl").unlink()
    assert "No step has been recorded yet" in read_page(write_run_report(run_dir)).text


@pytest.mark.parametrize("steps", [1, 2, RAMP // 2])
def test_a_run_that_has_only_begun(run_dir: Path, steps: int) -> None:
    rows = _rows(run_dir / "metrics.jsonl")[:steps]
    write_lines(run_dir / "metrics.jsonl", rows)
    write_lines(run_dir / "evaluation.jsonl", _rows(run_dir / "evaluation.jsonl")[:1])
    with (run_dir / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 99')
    text = read_page(write_run_report(run_dir)).text
    assert f"trained for {steps} of {STEPS['nano-1t']} steps" in text


def test_a_loss_that_is_no_number_leaves_a_gap(run_dir: Path) -> None:
    rows = _rows(run_dir / "metrics.jsonl")
    write_lines(run_dir / "metrics.jsonl", [{**row, "loss": float("nan")} for row in rows])
    write_lines(run_dir / "evaluation.jsonl", [])
    read_page(write_run_report(run_dir))


def test_skipped_steps_are_told(run_dir: Path) -> None:
    rows = _rows(run_dir / "metrics.jsonl")
    rows[3] |= {"loss": None, "grad_norm": None, "fault": "non_finite", "skipped": True}
    write_lines(run_dir / "metrics.jsonl", rows)
    page = read_page(write_run_report(run_dir))
    assert "Steps skipped as they went wrong: 1." in page.text
    assert len(page.images) == 8 and all(page.images)


def test_without_a_tokenizer_there_is_a_loss_but_no_bpb(run_dir: Path) -> None:
    rows = _rows(run_dir / "evaluation.jsonl")
    write_lines(run_dir / "evaluation.jsonl", [{**r, "bpb": {}, "bpb_mean": None} for r in rows])
    text = read_page(write_run_report(run_dir)).text
    assert "of what is held out, at step" in text and "Bits per byte" not in text
