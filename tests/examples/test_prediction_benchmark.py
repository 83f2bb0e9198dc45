"""The benchmark of predictions says what it is to say of runs and of distance."""

from pathlib import Path

import pytest

from benchmarks import prediction
from tests.prediction.folders import write_run, write_runs


def test_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [*write_runs(tmp_path), write_run(tmp_path / "w160", 160)]
    assert prediction.main([str(run) for run in runs]) == 0
    lines = capsys.readouterr().out.splitlines()
    # The two largest of seven, by both counts.
    begin = lines.index("all parameters, held-out loss")
    rows = [line.split() for line in lines[begin + 2 : begin + 4]]
    assert [row[1] for row in rows] == ["5", "6"]
    for _, _, measured, said, _, off, half, last, *_ in rows:
        assert abs(float(measured) - float(said)) == pytest.approx(float(off), abs=2e-4)
        assert float(last) == pytest.approx(2 * float(half), abs=2e-4)
        assert float(off) < float(half)
    assert "without embedding and head, held-out loss" in lines


def test_runs_that_do_not_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [*write_runs(tmp_path), write_run(tmp_path / "x", 80, training={"steps": 100})]
    assert prediction.main([str(run) for run in runs]) == 2
    assert "x: training.steps is 100" in capsys.readouterr().err


def test_a_law_that_is_not_quite_one(capsys: pytest.CaptureFixture[str]) -> None:
    """A second power of the size is in no interval of little noise, the further the less."""
    assert prediction.main(["--of", "distance", "--draws", "60"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    holds = {(row[0], int(row[1])): float(row[3].rstrip("%")) for row in rows}
    assert holds["slower", 16] < holds["slower", 2] < 85 < holds["none", 16]
