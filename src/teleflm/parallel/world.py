"""The processes of a run: torchrun's ranks, or just this one."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

from teleflm.parallel.ranks import Ranks

# A rank that is gone is noticed after this long at the latest: what waits for it gives up.
_TIMEOUT = timedelta(minutes=10)


@contextmanager
def world() -> Iterator[tuple[Ranks, torch.device]]:
    """All ranks of the run and this one's device, with a process group where there are several.

    CPU tensors travel by gloo, so that ranks can agree without the GPU; CUDA tensors by NCCL.
    """
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Ranks(), device
        return
    threading.Thread(target=_leave_with, args=(os.getppid(),), daemon=True).start()
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=_TIMEOUT)
    try:
        yield Ranks(), device
    finally:
        dist.destroy_process_group()


def _leave_with(launcher: int) -> None:
    """End this process when its launcher is gone: torchrun, killed, leaves its workers behind."""
    while os.getppid() == launcher:
        time.sleep(0.2)
    os._exit(1)
