"""A save that is killed at any point leaves whole checkpoints, and else only what is hidden."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

# It forks once for each event on the disk below the folder, and dies there. What a process does on
# disk raises audit events, each before it is done; so does each piece of a file here.
DRILL = """
import itertools, os, shutil, sys
from pathlib import Path
from teleflm.checkpoint import direct, writer
from teleflm.checkpoint.load import checkpoints, load_checkpoint
from teleflm.checkpoint.save import save_checkpoint, step_folder
from teleflm.files import clear_left_behind, remove_folder
from tests.growing import fresh_state
from tests.tiny import MODEL

root, what = Path(sys.argv[1]), sys.argv[2]
old, new = fresh_state(MODEL, 1), fresh_state(MODEL, 2)
writer._WORTH_A_FILE = 40_000
armed, left = False, 0

def event(*_):
    global left
    if armed:
        left -= 1
        if left < 0:
            os._exit(77)

def audit(name, arguments):
    if name in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.listdir"):
        if str(root) in str(arguments[0]):
            event()

def work(run):
    if what == "remove":
        remove_folder(step_folder(run, 1))
    else:
        target = step_folder(run, 1 if what == "replace" else 2)
        save_checkpoint(target, new, None, None, force=True)

flush = direct.DirectWriter._flush

def flush_after(self):
    event()
    flush(self)

direct._PIECE = 16_384
direct.DirectWriter._flush = flush_after
sys.addaudithook(audit)
for kills in itertools.count():
    run = root / str(kills)
    for step in (0, 1):
        save_checkpoint(step_folder(run, step), old, None, None)
    process = os.fork()
    if process == 0:
        left, armed = kills, True
        work(run)
        os._exit(0)
    _, status = os.waitpid(process, 0)
    folder = run / "checkpoints"
    for path in checkpoints(run):
        load_checkpoint(path)
    assert all(name.startswith((".step-", "step-")) for name in os.listdir(folder))
    clear_left_behind(folder)
    steps = [load_checkpoint(path)[0].step for path in checkpoints(run)]
    names = sorted(os.listdir(folder))
    assert names == [path.name for path in checkpoints(run)], names
    wanted = {"save": (2, 3), "replace": (2,), "remove": (1, 2)}[what]
    assert len(names) in wanted, names
    shutil.rmtree(run)
    if os.waitstatus_to_exitcode(status) == 0:
        assert len(names) == {"save": 3, "replace": 2, "remove": 1}[what]
        break
    assert os.waitstatus_to_exitcode(status) == 77
print(kills)
"""


@pytest.mark.slow
@pytest.mark.parametrize("what", ["save", "replace", "remove"])
def test_a_kill_at_any_event_on_the_disk(tmp_path: Path, what: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DRILL, str(tmp_path), what],
        cwd=Path(__file__).parents[2],  # where `tests` can be imported from
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # So many kills there were at least: the drill did hook into the writing.
    assert int(done.stdout) >= {"save": 20, "replace": 20, "remove": 3}[what]
