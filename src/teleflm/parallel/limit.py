"""How long a rank waits for a message of others before it gives them up."""

from datetime import timedelta

import torch.distributed as dist


def limit_waiting(limit: timedelta, group: dist.ProcessGroup | None = None) -> None:
    """Set it for a group, the world's where None.

    A mesh makes its groups without the world's limit: they have PyTorch's own, 10 minutes of NCCL
    and 30 of gloo, and there is no public way to give them another.
    """
    dist.distributed_c10d._set_pg_timeout(limit, group)
