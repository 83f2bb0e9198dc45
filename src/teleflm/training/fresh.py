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

from teleflm.growth.event import Event, Lineage
from teleflm.growth.operators import new_lines, on_any_line
from teleflm.model.axes import Axis, parameter_of
from teleflm.parallel.shard import Shard

# Behind zeros, what reads a new entry has a gradient only once what writes it has moved.
_UPDATES = 2


class FreshMoments:
    """The entries of a network whose first gradient may still come.

    New entries of a growth see it within the ramp, or in the first updates after it: a ramp of one
    step opens no mask before. The embedding's wait for their token to appear: so in tensors with a
    vocabulary axis all columns that the lineage ever added are watched, for ever.
    """

    def __init__(self, shards: Sequence[Shard], lineage: Lineage, step: int) -> None:
        self._for_ever: list[tuple[Shard, list[Tensor]]] = []
        self._at_first: list[tuple[Shard, list[Tensor]]] = []
        growths = [event for event in lineage if event.is_growth]
        if not growths:
            return
        # A skip bears the step that its update would have led to.
        skipped = {event.step for event in lineage if event.operator == "skip"}

        def updates_since(end: int) -> int:
            return step - end - sum(end < past <= step for past in skipped)

        ends = [event.step + event.ramp for event in growths]
        first = next((i for i, end in enumerate(ends) if updates_since(end) < _UPDATES), None)
        self._end = max(ends)
        self._updates = _UPDATES - max(updates_since(self._end), 0)
        for shard in shards:
            if Axis.VOCAB in parameter_of(shard.name).axes:
                self._watch(self._for_ever, shard, growths)
            elif first is not None:
                self._watch(self._at_first, shard, growths[first:])

    def _watch(
        self, watched: list[tuple[Shard, list[Tensor]]], shard: Shard, growths: Sequence[Event]
    ) -> None:
        # By lines, not entries: those would be a byte for each parameter.
        lines = new_lines(growths, shard.name)
        held = [line[part] for line, part in zip(lines, shard.region, strict=True)]
        if any(line.any() for line in held):
            watched.append((shard, [line.to(shard.local.device) for line in held]))

    @torch.no_grad()
    def seed(self, optimizer: torch.optim.AdamW, adam_steps: int, step: int) -> None:
        """Give entries without a history the one of their present gradient.

        Call it after clipping and before the update from `step` to the next, which makes
        `adam_steps` one more.
        """
        beta2 = optimizer.param_groups[0]["betas"][1]
        weight_of_past = 1.0 - beta2**adam_steps
        for shard, lines in (*self._for_ever, *self._at_first):
            new = on_any_line(lines)
            second = shard.held(optimizer.state[shard.local]["exp_avg_sq"])
            history = shard.held(shard.gradient).square().mul_(weight_of_past)
            second.copy_(torch.where((second == 0) & new, history, second))
        if self._at_first and step >= self._end:
            self._updates -= 1
            if self._updates == 0:
                self._at_first.clear()
