"""The launch scripts: their own usage lines start runs that can be laid out on their ranks, and a
Slurm job that runs out of time saves and comes back. torchrun and Slurm are stand-ins."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
import typer
from torch.distributed.run import get_args_parser

from teleflm.cli.main import app
from teleflm.config.run import load_run
from teleflm.config.sweep import load_sweep
from teleflm.parallel.choose import layout_for

ROOT = Path(__file__).parents[2]
SWEEP = ROOT / "examples/launch/sweep.sbatch"
SCRIPTS = sorted(set((ROOT / "examples/launch").iterdir()) - {SWEEP})
SLURM = "examples/launch/slurm.sbatch"
# What a script finds on its path in place of the real ones. torchrun writes down its arguments and
# then does as $TORCHRUN says.
STANDS_IN = {
    "torchrun": 'printf "%s\\0" "$@" > "$OUT/torchrun"; echo $$ > "$OUT/pid"; eval "$TORCHRUN"',
    "srun": 'while [[ "$1" == --* ]]; do shift; done; exec "$@"',
    "sbatch": 'export SLURM_JOB_NUM_NODES="$2"; shift 2; exec bash "$@"',
    "scontrol": '[ "$1" = show ] && printf "n0\\nn1\\n" || echo "$@" > "$OUT/scontrol"',
    "scancel": 'echo "$@" > "$OUT/scancel"; kill -TERM "$(cat "$OUT/pid")"',
}


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """One in which the stand-ins are found first; `OUT` is where they write."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, line in STANDS_IN.items():
        (programs / name).write_text(f"#!/usr/bin/env bash\n{line}\n")
        (programs / name).chmod(0o755)
    job = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[0-1]", "SLURM_JOB_NUM_NODES": "2"}
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, **job, "PATH": path, "OUT": str(tmp_path), "TORCHRUN": "exit 0"}


def usage(script: Path) -> str:
    """The command line in a script's head."""
    (block,) = re.findall(r"^#\n((?:#   .*\n)+)#\n", script.read_text(), re.M)
    return re.sub(r"^#", "", block, flags=re.M)


def test_these_are_all() -> None:
    assert [script.name for script in SCRIPTS] == [
        "one-node.sh",
        "several-nodes.sh",
        "slurm.sbatch",
    ]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_the_usage_line_starts_a_run(
    script: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    subprocess.run(["bash", "-n", script], check=True)
    subprocess.run(["bash", "-c", usage(script)], check=True, cwd=ROOT, env=environment)
    arguments = (tmp_path / "torchrun").read_text().split("\0")[:-1]
    torchrun = get_args_parser().parse_args(arguments)
    assert (torchrun.module, torchrun.training_script) == (True, "teleflm")
    assert torchrun.max_restarts > 0
    assert (torchrun.log_dir[:4], torchrun.tee) == ("logs", "3")
    verb, *rest = torchrun.training_script_args
    train = typer.main.get_command(app).commands[verb]  # type: ignore[attr-defined]
    given = train.make_context(verb, rest).params
    config = load_run(ROOT / given["run"], given["overrides"])
    # torchrun's own default for nodes is from 1 to 1.
    ranks = int(torchrun.nnodes.split(":")[-1]) * int(torchrun.nproc_per_node)
    assert layout_for(config, ranks).tp == config.parallel.tp > 1


def test_the_array_s_usage_line_starts_a_sweep(environment: dict[str, str], tmp_path: Path) -> None:
    python = Path(environment["OUT"]) / "bin" / "python"
    python.write_text('#!/usr/bin/env bash\nprintf "%s\\0" "$@" > "$OUT/python"\n')
    python.chmod(0o755)
    subprocess.run(["bash", "-c", usage(SWEEP)], check=True, cwd=ROOT, env=environment)
    (*module, verb, path), given = split((tmp_path / "python").read_text().split("\0")[:-1])
    assert [*module, verb] == ["-m", "teleflm", "sweep"]
    config = load_sweep(ROOT / path, given)
    assert (config.workers, config.storage) == (1, "journal.log")


def split(arguments: list[str]) -> tuple[list[str], list[str]]:
    return arguments[:4], arguments[4:]


def start(environment: dict[str, str], torchrun: str) -> "subprocess.Popen[bytes]":
    command = ["bash", SLURM, "examples/nano.yaml"]
    return subprocess.Popen(command, cwd=ROOT, env={**environment, "TORCHRUN": torchrun})


@pytest.mark.parametrize("code", [0, 1])
def test_a_job_that_ends_by_itself_stays_away(
    environment: dict[str, str], tmp_path: Path, code: int
) -> None:
    assert start(environment, f"exit {code}").wait(timeout=30) == code
    assert not (tmp_path / "scontrol").exists()


SAVES = """
trap 'touch "$OUT/saved"; exit {code}' TERM
touch "$OUT/up"
while true; do sleep 0.05; done
"""


def test_a_job_that_runs_out_of_time_saves_and_comes_back(
    environment: dict[str, str], tmp_path: Path
) -> None:
    # torchrun leaves with 1 when a signal ended its ranks.
    job = start(environment, SAVES.format(code=1))
    out_of_time(job, tmp_path)
    assert (tmp_path / "saved").exists()
    assert (tmp_path / "scancel").read_text() == "--signal=TERM 7\n"
    assert (tmp_path / "scontrol").read_text() == "requeue 7\n"


def test_a_run_that_is_done_just_then_does_not_come_back(
    environment: dict[str, str], tmp_path: Path
) -> None:
    job = start(environment, SAVES.format(code=0))
    assert out_of_time(job, tmp_path) == 0
    assert not (tmp_path / "scontrol").exists()


def out_of_time(job: "subprocess.Popen[bytes]", out: Path) -> int:
    """Send the signal that Slurm does once the ranks are up; the job's exit code."""
    while not (out / "up").exists():
        assert job.poll() is None
        time.sleep(0.02)
    job.send_signal(signal.SIGUSR1)
    return job.wait(timeout=30)
