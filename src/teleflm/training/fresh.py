"""First updates of new weights.

Adam's step count survives a growth, so that the old weights' trajectory does. A new entry then has
zero moments under a late count, and its first update would be (1−β1)/√(1−β2) of the learning
rate: 3.2 times too much at betas 0.9/0.999. So an entry takes its first gradient g for its whole
history: v ← g² (1 − β2^(t−1)) before step t, which makes v̂ = g² and the update at most the
learning rate, at any betas. At t = 1 it is Adam unchanged.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from teleflm.growth.event import Lineage
from teleflm.growth.fold import growth_map
from teleflm.model.axes import Axis, parameter_of
from teleflm.parallel.shard import Shard


class FreshMoments:
    """The entries of a network whose first gradient may still come.

    New entries of a growth see it within the ramp, at its end at the latest (a ramp of one step
    opens no mask before), or at the first update after it where that one was skipped. The
    embedding's wait for their token to appear: so in tensors with a vocabulary axis all columns
    that the lineage ever added are watched, for ever.
    """

    def __init__(self, shards: Sequence[Shard], lineage: Lineage, step: int) -> None:
        self._for_ever: list[tuple[Shard, Tensor]] = []
        self._in_the_ramp: list[tuple[Shard, Tensor]] = []
        growths = [event for event in lineage if event.source and event.operator == "mask"]
        if not growths:
            return
        oldest, newest = growths[0].source, growths[-1]
        assert oldest is not None
        self._end = newest.step + newest.ramp
        skipped = {event.step for event in lineage if event.operator == "skip"}
        # A skip bears the step that its update would have led to.
        waits = all(past + 1 in skipped for past in range(self._end, step))
        for shard in shards:
            parameter, device = parameter_of(shard.name), shard.local.device
            if Axis.VOCAB in parameter.axes:
                columns = shard.region[1]
                new = torch.arange(columns.start, columns.stop) >= oldest.hidden_size
                self._for_ever.append((shard, new.to(device)))
            elif waits:
                new = growth_map(newest).is_new(shard.name, parameter, shard.region)
                self._in_the_ramp.append((shard, new.to(device)))

    @torch.no_grad()
    def seed(self, optimizer: torch.optim.AdamW, adam_steps: int, step: int) -> None:
        """Give entries without a history the one of their present gradient.

        Call it after clipping and before the update from `step` to the next, which makes
        `adam_steps` one more.
        """
        beta2 = optimizer.param_groups[0]["betas"][1]
        weight_of_past = 1.0 - beta2**adam_steps
        for shard, new in (*self._for_ever, *self._in_the_ramp):
            second = shard.held(optimizer.state[shard.local]["exp_avg_sq"])
            history = shard.held(shard.gradient).square().mul_(weight_of_past)
            second.copy_(torch.where((second == 0) & new, history, second))
        if self._in_the_ramp and step >= self._end:
            self._in_the_ramp.clear()
