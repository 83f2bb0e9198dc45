"""Ranks whose peer or launcher is gone leave soon, whatever they are waiting for."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch.distributed import TCPStore

from teleflm.parallel.world import tells_of_a_lost_rank

# A rank that nothing reaches but its own threads: it stands for one that waits for its GPU.
RANK = """
import signal, sys, time
from teleflm.errors import MachineError
from teleflm.parallel.world import world
signal.signal(signal.SIGTERM, lambda *_: None)
with world() as (ranks, _):
    print("in", flush=True)
    time.sleep(float(sys.argv[1 + ranks.rank]))
print("out", flush=True)
"""
# torchrun's part: it starts a process, says which, and is killed.
LAUNCHER = """
import subprocess, sys, time
print(subprocess.Popen([sys.executable, "-c", sys.argv[1], *sys.argv[2:]]).pid, flush=True)
time.sleep(300)
"""


def started(*command: str, **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", *command],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def three(request: pytest.FixtureRequest) -> Iterator[list["subprocess.Popen[str]"]]:
    """Three ranks in a world that they leave after so many seconds each."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    place = {"MASTER_ADDR": "localhost", "MASTER_PORT": port, "WORLD_SIZE": "3"}
    ranks = [started(RANK, *request.param, **place, RANK=str(rank)) for rank in range(3)]
    for process in ranks:
        assert process.stdout is not None
        assert process.stdout.readline() == "in\n"
    yield ranks
    for process in ranks:
        process.kill()
        process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("three", [("300", "300", "300")], indirect=True)
def test_a_killed_rank_takes_those_with_it_that_hear_nothing(
    three: list["subprocess.Popen[str]"],
) -> None:
    three[1].kill()
    killed = time.monotonic()
    for process in (three[0], three[2]):
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out) == (1, "")
        assert "error: rank" in err and "lost contact with another rank" in err
    # Once round the ring, not a time of grace for each.
    assert time.monotonic() - killed < 9


@pytest.mark.slow
@pytest.mark.parametrize("three", [("8", "0", "0")], indirect=True)
def test_a_rank_may_take_longer_than_the_others(three: list["subprocess.Popen[str]"]) -> None:
    for process in three:
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out, err) == (0, "out\n", "")


@pytest.mark.slow
@pytest.mark.parametrize("while_loading", [False, True])
def test_a_rank_leaves_with_its_launcher(while_loading: bool) -> None:
    # Of two ranks that never meet: it waits for the other, for minutes.
    with socket.create_server(("localhost", 0)) as nobody:
        place = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(nobody.getsockname()[1])}
        early = "import teleflm.parallel.launcher\nimport os, sys, time\n"
        wait = "while os.getppid() == teleflm.parallel.launcher._LAUNCHER: time.sleep(0.01)\n"
        script = early + (wait if while_loading else "") + RANK
        launcher = started(LAUNCHER, script, "300", "300", **place, RANK="1", WORLD_SIZE="2")
        assert launcher.stdout is not None
        rank = Path("/proc", launcher.stdout.readline().strip())
        time.sleep(0.5 if while_loading else 6)
        assert rank.exists()
        launcher.send_signal(signal.SIGKILL)
        launcher.wait()
        until = time.monotonic() + 30
        while rank.exists() and time.monotonic() < until:
            time.sleep(0.05)
        assert not rank.exists()


MEETS = """
import sys
from datetime import timedelta
from teleflm.parallel.rendezvous import fresh_store
store, rank, count = fresh_store(timedelta(seconds=60))
if rank == 0:
    store.set("address", sys.argv[1])
print(store.get("address").decode(), flush=True)
sys.stdin.read()
"""


@pytest.mark.slow
def test_a_restart_meets_in_a_store_that_still_has_the_words_of_the_dead() -> None:
    store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    place = {
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # as torchrun says it
        "WORLD_SIZE": "2",
    }
    for start in ("first", "second"):
        ranks = [started(MEETS, start, **place, RANK=str(rank)) for rank in (1, 0)]
        for process in ranks:
            assert process.stdout is not None
            assert process.stdout.readline() == f"{start}\n"
        for process in ranks:
            process.kill()
            process.communicate()


def test_a_pipelines_own_error_tells_of_a_lost_rank() -> None:
    peer = RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer")
    wrapped = RuntimeError("[Stage 0] failed to run forward")
    wrapped.__cause__ = peer
    assert tells_of_a_lost_rank(wrapped)
    assert not tells_of_a_lost_rank(RuntimeError("shapes do not fit"))
