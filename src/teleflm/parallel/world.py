"""The processes of a run: torchrun's ranks, or just this one."""

import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

from teleflm.errors import MachineError
from teleflm.parallel.ranks import Ranks

# A rank that is gone is noticed after this long at the latest: what waits for it gives up.
_TIMEOUT = timedelta(minutes=10)
# What gloo and NCCL say where a rank does not answer.
_LOST = re.compile(r"gloo|NCCL|connection|timed out|broken pipe", re.I)


@contextmanager
def world() -> Iterator[tuple[Ranks, torch.device]]:
    """All ranks of the run and this one's device, with a process group where there are several.

    CPU tensors travel by gloo, so that ranks can agree without the GPU; CUDA tensors by NCCL. A
    process group that is there already is taken as it is.

    Raises:
        MachineError: a rank does not answer any more.
    """
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    if dist.is_initialized() or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Ranks(), device
        return
    threading.Thread(target=_leave_with, args=(os.getppid(),), daemon=True).start()
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=_TIMEOUT)
    try:
        yield Ranks(), device
    except RuntimeError as error:
        if _LOST.search(str(error)) is None:
            raise
        raise MachineError(
            "lost contact with another rank, which failed or was killed; the last checkpoint "
            "stands: the same command goes on from there, torchrun --max-restarts does so by itself"
        ) from error
    finally:
        dist.destroy_process_group()


def _leave_with(launcher: int) -> None:
    """End this process when its launcher is gone: torchrun, killed, leaves its workers behind."""
    while os.getppid() == launcher:
        time.sleep(0.2)
    os._exit(1)


def is_first() -> bool:
    """Whether this process speaks for all that torchrun started."""
    return os.environ.get("RANK", "0") == "0"
