"""Where the ranks of one start meet, apart from those of earlier starts."""

import time
import uuid
from datetime import timedelta

from torch.distributed import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous


def fresh_store(timeout: timedelta) -> tuple[Store, int, int]:
    """A store that only the ranks of this start use, this one's rank, and how many there are.

    torchrun keeps one store over all its restarts. What a killed rank wrote there is then taken
    for what its successor will write, and no restart ever comes up (pytorch issue 135712). The
    number of the restart does not tell starts apart: each node counts its own. So the first rank
    makes up a name, and tells it to whoever asks under a name made up likewise.

    Raises:
        RuntimeError: a rank did not come in time.
    """
    store, rank, count = next(iter(rendezvous("env://", timeout=timeout)))
    if rank == 0:
        name = _welcome(store, count, timeout)
    else:
        mine = uuid.uuid4().hex
        store.set(f"asks/{rank}", mine)
        name = store.get(mine).decode()
        store.add(f"{name}/arrived", 1)
    return PrefixStore(name, store), rank, count


def _welcome(store: Store, count: int, timeout: timedelta) -> str:
    name = uuid.uuid4().hex
    until = time.monotonic() + timeout.total_seconds()
    answered: dict[int, str] = {}
    while store.add(f"{name}/arrived", 0) < count - 1:
        if time.monotonic() > until:
            raise RuntimeError(f"timed out: {count} ranks did not meet")
        for rank in range(1, count):
            # What a dead rank asked is answered too; its successor asks anew.
            if store.check([f"asks/{rank}"]):
                asks = store.get(f"asks/{rank}").decode()
                if answered.get(rank) != asks:
                    answered[rank] = asks
                    store.set(asks, name)
        time.sleep(0.02)
    return name
