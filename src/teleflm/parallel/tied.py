"""A tied embedding on a pipeline: the first stage looks up in it, the last one scores with it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist

from teleflm.config.model import ModelConfig
from teleflm.model.axes import EMBEDDING
from teleflm.parallel.mesh import Mesh
from teleflm.parallel.shard import Shard


@dataclass(frozen=True)
class TiedEnds:
    """One of the two ranks that hold the same part of it.

    Each keeps weights and moments of its own. They stay equal to the last bit, as both update them
    by the same sum, and a sum of two does not depend on their order.

    Attributes:
        shard: this rank's.
        group: the ranks of the pipeline.
        other: where the other one stands among them.
    """

    shard: Shard
    group: dist.ProcessGroup
    other: int

    def sum_gradients(self) -> None:
        """Add the other end's gradient to this one's."""
        mine = self.shard.gradient
        if not mine.numel():
            return
        theirs = torch.empty_like(mine)
        ends = ((dist.isend, mine), (dist.irecv, theirs))
        operations = [
            dist.P2POp(operation, tensor, group=self.group, group_peer=self.other)
            for operation, tensor in ends
        ]
        for work in dist.batch_isend_irecv(operations):
            work.wait()
        mine.add_(theirs)


def tied_ends(model: ModelConfig, mesh: Mesh, shards: Sequence[Shard]) -> TiedEnds | None:
    """This rank's end of a pipeline; None in between, and where nothing is tied."""
    first, last = 0, mesh.layout.pp - 1
    if model.has_head or mesh.place.pp not in (first, last):
        return None
    (shard,) = (shard for shard in shards if shard.name == EMBEDDING)
    other = last if mesh.place.pp == first else first
    return TiedEnds(shard, mesh.axes["pp"].get_group(), other)
