#!/usr/bin/env bash
# A process group is started with `timeout`, after which a rank that does not answer is given up.
# The groups that `init_device_mesh` makes do not have it: with gloo they wait for PyTorch's own
# 30 minutes. So the limit that a program sets at its start does not hold for tensor-parallel or
# data-parallel sums, where a job hangs.
#
# Seen with torch 2.13.0: under a limit of 4 s, with a rank that comes 10 s late, a sum in the world's
# group ends after 4 s with an error; one in a group of a 2 x 2 mesh waits the 10 s and is done.
# This script fails where that is no longer so. It needs Python >= 3.11 and some minutes of downloads.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check "torch==2.13.0" numpy

cat > "$folder/late.py" <<'PYTHON'
import sys
import time
from datetime import timedelta

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

RANKS, LIMIT, LATE = 4, 4, 10


def sum_in(which, rank, store, results):
    dist.init_process_group(
        "gloo",
        init_method=f"file://{store}",
        rank=rank,
        world_size=RANKS,
        timeout=timedelta(seconds=LIMIT),
    )
    mesh = dist.device_mesh.init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "tensor"))
    group = mesh.get_group("tensor") if which == "mesh" else None
    if rank == 1:
        time.sleep(LATE)
    started = time.monotonic()
    try:
        dist.all_reduce(torch.ones(1), group=group)
        outcome = "done"
    except RuntimeError:
        outcome = "given up"
    if rank == 0:
        results.put((outcome, round(time.monotonic() - started)))


def work(rank, which, store, results):
    sum_in(which, rank, store, results)


if __name__ == "__main__":
    found = {}
    for which in ("world", "mesh"):
        results = mp.get_context("spawn").SimpleQueue()
        context = mp.spawn(work, (which, f"{sys.argv[1]}/{which}", results), RANKS, join=False)
        found[which] = results.get()
        for process in context.processes:
            process.kill()
        print(f"torch {torch.__version__}, {which}: {found[which][0]} after {found[which][1]} s")
    assert found["world"][0] == "given up" and found["world"][1] < LATE, "the world has its limit"
    assert found["mesh"][0] == "done" and found["mesh"][1] > LIMIT, "a mesh has the limit now, too"
    print("as seen: the groups of a mesh do not have the limit of the world's")
PYTHON
"$folder/venv/bin/python" "$folder/late.py" "$folder"
