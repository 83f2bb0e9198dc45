"""`teleflm dryrun` as a user has it."""

import json
from pathlib import Path

import pytest

from teleflm.cli.progress import count_progress
from teleflm.planning.dryrun import dry_run
from tests.conftest import Command

RUN = """
run_dir: run
model: {preset: nano-52b, num_hidden_layers: 2}
data: {path: nowhere, sequence_length: 32}
training: {steps: 1, global_batch: 4}
"""


@pytest.fixture
def run_yaml(tmp_path: Path) -> str:
    path = tmp_path / "run.yaml"
    path.write_text(RUN, encoding="utf-8")
    return str(path)


def test_a_rank_is_told(teleflm: Command, run_yaml: str) -> None:
    done = teleflm("dryrun", run_yaml, "--rank", "0", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    memory = found["memory_bytes"]
    assert found["stage_layers"] == [0, 1] and found["collectives"] == {}
    assert memory["parameters"] == 4 * found["parameters_local"] == memory["optimizer"] // 2
    kept = sum(memory[kind] for kind in ("parameters", "gradients", "optimizer"))
    assert memory["peak"] == kept + memory["activations"]
    assert found["flops"] == sum(found["flops_by_operator"].values()) > 0
    lines = teleflm("dryrun", run_yaml, "--rank", "0").out.splitlines()
    assert lines[0] == "rank 0 of 1: tp 1 · pp 1 · dp 1; layers 0 to 1"
    assert max(map(len, lines)) <= 80


def test_a_whole_job_is_told_and_drawn(
    teleflm: Command, run_yaml: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In this process, which is quicker.
    monkeypatch.setattr(
        "teleflm.planning.job.dry_runs",
        lambda config, ranks, which, device: (dry_run(config, ranks, r, device) for r in which),
    )
    out = tmp_path / "out"
    done = teleflm("dryrun", run_yaml, "--json", "--out", str(out))
    assert done.code == 0, done.err
    *lines, last = done.err.splitlines()
    assert lines[0] == "dry run: 0 of 1 ranks" and "1 of 1 ranks, " in lines[1]
    assert last == f"the report: {out / 'report.html'}"
    record = json.loads((out / "dryrun.json").read_text(encoding="utf-8"))
    assert record == {"run": run_yaml, "ranks": 1, **json.loads(done.out)}
    assert "run on 1 rank<" in (out / "report.html").read_text(encoding="utf-8")


def test_a_line_says_rate_and_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([100.0, 106.0, 106.0])
    monkeypatch.setattr("teleflm.cli.progress.time.monotonic", lambda: next(clock))
    with count_progress("dry run", "ranks") as tell:
        tell(0, 6)
        tell(2, 6)
    assert capsys.readouterr().err.splitlines() == [
        "dry run: 0 of 6 ranks",
        "dry run: 2 of 6 ranks, 3.0 s each, 12 s left",
    ]


def test_a_terminal_has_a_bar(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    with count_progress("dry run", "ranks") as tell:
        tell(0, 6)
        tell(6, 6)
    err = capsys.readouterr().err
    assert "6/6" in err and "s each" in err and "6 of 6" not in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--world-size", "8", "--rank", "8", "parallel.tp=4"), "rank 8: the 8 ranks are 0 to 7"),
        (("--world-size", "8", "parallel.tp=3"), "does not divide 8 ranks"),
        (("--world-size", "4", "parallel.pp=4"), "num_hidden_layers is 2"),
        (("--rank", "0", "--out", "o"), "--out is for the whole job"),
    ],
)
def test_what_cannot_be_is_named(
    teleflm: Command, run_yaml: str, arguments: tuple[str, ...], words: str
) -> None:
    done = teleflm("dryrun", run_yaml, *arguments)
    assert done.code == 2 and words in done.err
