#!/usr/bin/env bash
# A process group of torch.distributed that nobody uses costs nothing, one would think: its threads
# sleep until there is a message. With torch 2.13.0 on Linux each group of gloo, one of a single
# rank too, has a thread that wakes about 100 times a second for as long as the process lives. A
# program that makes groups and leaves them, such as a test suite with a device mesh for each
# case, loses its processors to that bit by bit: 560 such threads took a third of two cores.
#
# Seen with torch 2.13.0, 40 groups of one rank, idle for 5 s: 40 threads named gloo_tcp_loop, 99
# wake-ups a second each. This script fails where there are less than 50 a second, or other threads.
# It needs Linux, Python >= 3.11 and some minutes of downloads.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    "torch==2.13.0" "numpy==2.3.5"

cat > "$folder/idle.py" <<'PYTHON'
import os
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist

GROUPS, SECONDS = 40, 5


def wakeups() -> dict[str, int]:
    """How often each thread that serves a group has gone to sleep of its own accord."""
    found = {}
    for task in Path("/proc/self/task").iterdir():
        if (task / "comm").read_text().strip() == "gloo_tcp_loop":
            lines = dict(line.split(":\t", 1) for line in (task / "status").read_text().splitlines())
            found[task.name] = int(lines["voluntary_ctxt_switches"])
    return found


store = os.path.join(sys.argv[1], "store")
dist.init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)
for _ in range(GROUPS - 1):
    dist.new_group([0])
before = wakeups()
time.sleep(SECONDS)
after = wakeups()
rates = sorted((after[thread] - count) / SECONDS for thread, count in before.items())
print(f"torch {torch.__version__}: {len(rates)} threads, {rates[0]:.0f} to {rates[-1]:.0f} wake-ups a second")
sys.exit(len(rates) != GROUPS or rates[0] < 50)
PYTHON
"$folder/venv/bin/python" "$folder/idle.py" "$folder"
