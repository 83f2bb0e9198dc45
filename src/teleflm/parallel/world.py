"""The processes of a run: torchrun's ranks, or just this one."""

import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import cast

import torch
import torch.distributed as dist

from teleflm.config.run import FaultsConfig
from teleflm.errors import MachineError, StoppedError
from teleflm.parallel.launcher import check_launch, count, leave_with_launcher, local_rank
from teleflm.parallel.limit import limit_waiting
from teleflm.parallel.ranks import Ranks
from teleflm.parallel.rendezvous import fresh_store

# Longer than any run.
_NEVER = timedelta(days=3650)
# How long a rank whose neighbour is gone has to leave by itself.
_GRACE_SECONDS = 5.0
# What gloo and NCCL say where a rank does not answer.
_LOST = re.compile(r"gloo|NCCL|connection|timed out|broken pipe", re.I)
_LOST_CONTACT = (
    "lost contact with another rank, which failed, was killed or said nothing for as long as "
    "faults.timeout_minutes; the last checkpoint stands: the same command goes on from there, "
    "torchrun --max-restarts does so by itself"
)


@contextmanager
def world(limit: timedelta | None = None) -> Iterator[tuple[Ranks, torch.device]]:
    """All ranks of the run and this one's device, with a process group where there are several.

    CPU tensors travel by gloo, so that ranks can agree without the GPU; CUDA tensors by NCCL. A
    process group that is there already is taken as it is, but for the limit. A rank ends with its
    launcher, and soon after another rank failed or was killed.

    Args:
        limit: a rank that is there and does not answer is given up after this long; see
            `FaultsConfig`, whose default it is unless given.

    Raises:
        ConfigError: torchrun's variables lack the place to meet.
        MachineError: a rank does not answer any more.
    """
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", local_rank())
        torch.cuda.set_device(device)
    if dist.is_initialized() or count() == 1:
        if dist.is_initialized() and limit is not None:
            limit_waiting(limit)
        yield Ranks(), device
        return
    check_launch()
    leave_with_launcher()
    over = threading.Event()
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    try:
        usual = FaultsConfig().timeout
        limit = limit or usual
        # Machines come up one by one, however soon a message is due.
        store, rank, size = fresh_store(max(limit, usual))
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=limit)
        ranks = Ranks()
        with _neighbour_watched(ranks, over):
            yield ranks, device
    except RuntimeError as error:
        if not tells_of_a_lost_rank(error):
            raise
        raise MachineError(_LOST_CONTACT) from error
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
        over.set()


def tells_of_a_lost_rank(error: BaseException | None) -> bool:
    """Whether the engine's words do; a pipeline's own error has them in what caused it."""
    if error is None:
        return False
    return bool(_LOST.search(str(error))) or tells_of_a_lost_rank(error.__cause__)


@contextmanager
def _neighbour_watched(ranks: Ranks, over: threading.Event) -> Iterator[None]:
    """End this process soon after another one failed, unless the world is `over` for it by then.

    A rank that waits for a GPU that waits for a lost rank hears nothing, not even SIGTERM. So in a
    ring a thread waits for a word of the rank before: that all is well at the end, or that
    somebody is lost. Where that rank dies, its connection breaks, and the word goes on from here.
    """
    # Its own methods, as they do not mind that the other thread takes down the process group.
    group = cast(dist.ProcessGroup, dist.new_group(backend="gloo", timeout=_NEVER))

    def tell_next(lost: bool) -> None:
        group.send([torch.tensor(lost)], (ranks.rank + 1) % ranks.count, 0).wait()

    def listen() -> None:
        lost = torch.tensor(True)
        with suppress(RuntimeError):
            group.recv([lost], (ranks.rank - 1) % ranks.count, 0).wait()
        if not lost:
            return
        with suppress(RuntimeError):
            tell_next(lost=True)
        if not over.wait(_GRACE_SECONDS):
            print(f"error: rank {ranks.rank}: {_LOST_CONTACT}", file=sys.stderr, flush=True)
            os._exit(MachineError.exit_code)

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    well = True
    try:
        yield
    except StoppedError:
        raise
    except BaseException:
        well = False
        raise
    finally:
        if well:
            # Together, as the first rank may still be at its report while the others are done.
            tell_next(lost=False)
            thread.join()
