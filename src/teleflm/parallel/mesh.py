"""The mesh of a run: its ranks on the named axes pp, dp_replicate, dp_shard and tp."""

from dataclasses import dataclass
from datetime import timedelta
from functools import cache, cached_property

import torch
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from teleflm.parallel.layout import Layout, Place
from teleflm.parallel.limit import limit_waiting

AXES = ("pp", "dp_replicate", "dp_shard", "tp")


@dataclass(frozen=True)
class Mesh:
    """A layout on live ranks.

    Attributes:
        layout: which ranks do what.
        rank: this one.
        device: where it computes.
        axes: the mesh, with the axes of `AXES`.
    """

    layout: Layout
    rank: int
    device: torch.device
    axes: DeviceMesh

    @property
    def place(self) -> Place:
        """Where this rank stands."""
        return self.layout.place(self.rank)

    @cached_property
    def tp(self) -> DeviceMesh:
        """The tensor-parallel ranks of this one."""
        return self.axes["tp"]

    @cached_property
    def dp(self) -> DeviceMesh:
        """The data-parallel ranks of this one: sharded, or replicate × sharded."""
        if self.layout.dp_replicate > 1:
            return self.axes["dp_replicate", "dp_shard"]
        return self.axes["dp_shard"]


@cache
def build_mesh(
    layout: Layout, rank: int, device: torch.device, limit: timedelta | None = None
) -> Mesh:
    """The mesh of a layout; the process group must be up and have `layout.ranks` ranks.

    A rank that does not answer within `limit` is given up, after PyTorch's own time where None.

    Made once: its groups live as long as the process, with threads and buffers of their own, and a
    run that rolls back comes here again.
    """
    sizes = tuple(getattr(layout, axis) for axis in AXES)
    axes = init_device_mesh(device.type, sizes, mesh_dim_names=AXES)
    if limit is not None:
        for group in axes.get_all_groups():
            limit_waiting(limit, group)
    return Mesh(layout, rank, device, axes)
