"""One process at a time in a run folder."""

import subprocess
import sys
from pathlib import Path

import pytest

from teleflm.errors import RunLockedError
from teleflm.training.lock import locked

HOLD = """
import sys, time
from pathlib import Path
from teleflm.training.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_another_process_is_refused_until_it_is_gone(tmp_path: Path) -> None:
    run = tmp_path / "a" / "run"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(RunLockedError, match=f"{run}: another process") as refused, locked(run):
            pass
        assert refused.value.exit_code == 2
        holder.kill()
        holder.wait()
        with locked(run):
            pass


def test_it_is_let_go_also_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), locked(tmp_path):
        raise ZeroDivisionError
    with locked(tmp_path), pytest.raises(RunLockedError), locked(tmp_path):
        pass
