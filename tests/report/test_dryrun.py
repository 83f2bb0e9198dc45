"""The page of a whole job's dry run, from its record alone."""

import json
from pathlib import Path

import pytest

from teleflm.errors import DataError
from teleflm.report.dryrun import read_dryrun, write_dryrun_report
from tests.report.page import read_page

GB = 10**9


def stage(rank: int, *, is_run: bool, peak: int) -> dict[str, object]:
    return {
        "rank": rank,
        "layout": {"tp": 2, "pp": 3, "dp": 1},
        "stage_layers": [rank, rank + 1],
        "parameters_local": 1_250_000,
        "memory_bytes": {
            "parameters": 5 * GB,
            "gradients": 5 * GB,
            "optimizer": 10 * GB,
            "activations": peak - 20 * GB,
            "peak": peak,
        },
        "flops": 10**15,
        "collectives": {"pp.send": {"count": 3, "bytes": 7 * GB}} if rank < 4 else {},
        "micro_batches": 40,
        "micro_batches_run": 5,
        "is_run": is_run,
    }


def test_a_dry_run(tmp_path: Path) -> None:
    peaks = [30 * GB, 41 * GB, 25 * GB]
    stages = [stage(2 * at, is_run=at != 1, peak=peak) for at, peak in enumerate(peaks)]
    record = {"run": "examples/mine.yaml", "ranks": 6, "stages": stages}
    (tmp_path / "dryrun.json").write_text(json.dumps(record), encoding="utf-8")
    page = read_page(write_dryrun_report(tmp_path))
    assert "mine on 6 ranks" in page.text and "Rank 2 needs the most memory: 41 GB" in page.text
    assert "2 *" in page.text and "4 *" not in page.text
    assert "Of 40 micro-batches 5 were run" in page.text
    (memory,) = page.images
    assert memory is not None and "Rank 1 needs the most, 41 GB: parameters 5 GB" in memory


def test_without_a_record(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file; teleflm dryrun with --out"):
        read_dryrun(tmp_path)
