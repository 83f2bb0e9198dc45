"""A rank that works for longer than a message may take does not end the run; one that is lost
without a word, or that nobody hears of, does."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from teleflm.checkpoint.load import find_checkpoint
from teleflm.checkpoint.manifest import read_manifest
from teleflm.config.run import FaultsConfig
from teleflm.data.store import TokenStore
from tests.tiny import run_fields

# Seconds that a message may take, and that a rank is at work.
LIMIT, WORK = 5, 9
START = f"""
import sys, time
from datetime import timedelta
import torch
import torch.distributed as dist
from teleflm.errors import MachineError
from teleflm.parallel.layout import Layout
from teleflm.parallel.mesh import build_mesh
from teleflm.parallel.world import world

LIMIT = timedelta(seconds={LIMIT})

def works(ranks, who):
    if ranks.rank == who:
        time.sleep({WORK})
    return ranks.rank
"""
"""What both ranks of a script begin with."""


def run_on(ranks: int, script: str, *arguments: str) -> list[tuple[int, str, str]]:
    """Run a script on so many ranks: the exit code of each, and what it said."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    place = {"MASTER_ADDR": "localhost", "MASTER_PORT": port, "WORLD_SIZE": str(ranks)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", START + script, *arguments],
            env={**os.environ, "OMP_NUM_THREADS": "1", **place, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(ranks)
    ]
    try:
        told = [process.communicate(timeout=180) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, *texts) for process, texts in zip(processes, told, strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize(
    "work",
    [
        "ranks.from_first(lambda: works(ranks, 0))",
        "ranks.agreed(lambda: works(ranks, 0))",
        # In a group of its own, as saves are.
        "Ranks(dist.new_group(backend='gloo', timeout=LIMIT)).agreed(lambda: works(ranks, 1))",
    ],
)
def test_work_of_a_rank_takes_as_long_as_it_takes(work: str) -> None:
    script = f"""
from teleflm.parallel.ranks import Ranks
with world(LIMIT) as (ranks, _):
    print({work})
"""
    for code, out, err in run_on(2, script):
        assert code == 0 and out, err


def test_a_failure_after_long_work_is_everybodys() -> None:
    script = """
def fails():
    time.sleep(2)
    raise MachineError("the disk is full")
with world(LIMIT) as (ranks, _):
    try:
        ranks.from_first(fails)
    except MachineError as error:
        print(error)
"""
    for code, out, err in run_on(2, script):
        assert (code, out) == (0, "the disk is full\n"), err


@pytest.mark.slow
@pytest.mark.parametrize("group", ["mesh.tp.get_group()", "mesh.dp.get_group()"])
def test_a_message_has_its_limit(group: str) -> None:
    # Long before the 10 minutes, and the 30 that PyTorch gives to a mesh's groups, are over.
    script = f"""
try:
    with world(LIMIT) as (ranks, device):
        mesh = build_mesh(Layout(tp=2, dp_shard=2), ranks.rank, device, LIMIT)
        if ranks.rank:
            time.sleep(60)
        dist.all_reduce(torch.ones(1), group={group})
        print("heard")
except MachineError as error:
    print(error)
"""
    started = time.monotonic()
    first, *_ = run_on(4, script)
    assert first[1].startswith("lost contact"), first[2]
    assert time.monotonic() - started < 60


TRAINS = """
import json
from pathlib import Path
import pytest
from teleflm.data.loader import Loader
from teleflm.parallel.launcher import rank
from teleflm.training import roll_back, start
from teleflm.training.loop import train
from tests.tiny import other_text

def slowly(where, name):
    action = getattr(where, name)
    def slow(*arguments):
        print(name, flush=True)
        time.sleep(12)
        return action(*arguments)
    patch.setattr(where, name, slow)

patch = pytest.MonkeyPatch()
other_text(patch, {11})
data = json.loads(sys.argv[1])
"""
"""A run of one word, but for a batch that is noise, with a place for what is to be slow."""


def run_of(store: TokenStore, run_dir: Path) -> str:
    fields = run_fields(
        store.path,
        run_dir,
        training={"steps": 14, "dtype": "fp64"},
        optimizer={"learning_rate": 2e-2, "matrix_learning_rate": 2e-3, "eps": 1e-5},
        checkpoint={"every": 4},
        spikes={"window": 6, "threshold": 4.0, "answer": "roll_back"},
        growth={"to": {"hidden_size": 40, "num_hidden_layers": 3}, "place": "distance"},
        # Nine seconds.
        faults={"timeout_minutes": 0.15},
    )
    return json.dumps(fields)


@pytest.mark.slow
def test_growth_and_roll_back_may_take_longer(store: TokenStore, tmp_path: Path) -> None:
    script = """
slowly(start, "measured_distances")
slowly(roll_back, "_is_whole")
train(start.resolve_config(data, "the test"))
"""
    first, second = run_on(2, TRAINS + script, run_of(store, tmp_path / "run"))
    assert first[0] == second[0] == 0, first[2]
    assert first[1].split() == ["measured_distances", "_is_whole"] and not second[1]
    (event,) = read_manifest(find_checkpoint(tmp_path / "run")).lineage[-1:]
    assert event.operator == "roll_back"


@pytest.mark.slow
def test_a_step_may_not(store: TokenStore, tmp_path: Path) -> None:
    script = """
if rank():
    slowly(Loader, "batch")
try:
    train(start.resolve_config(data, "the test"))
except MachineError as error:
    print(error)
"""
    first, _ = run_on(2, TRAINS + script, run_of(store, tmp_path / "run"))
    assert "lost contact" in first[1], first[2]


def test_the_limit_is_ten_minutes_unless_given() -> None:
    assert FaultsConfig().timeout.total_seconds() == 600
