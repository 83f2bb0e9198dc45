"""What a checkpoint holds, in memory."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor

from teleflm.config.model import ModelConfig
from teleflm.growth.event import Event, Lineage
from teleflm.model.region import Region

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class TrainingState:
    """Everything that training goes on from.

    Attributes:
        model: the shape of the tensors.
        weights: master weights under Llama's keys.
        exp_avg, exp_avg_sq: Adam's first and second moments under the same keys.
        adam_steps: Adam's own count of updates.
        step, tokens, sequences, flops: how far the whole lineage has come.
        lineage: the events so far, the newest last.
        regions: which tensors this process holds and what part of each; None where the tensors
            are whole and all there.
    """

    model: ModelConfig
    weights: Tensors = field(repr=False)
    exp_avg: Tensors = field(repr=False)
    exp_avg_sq: Tensors = field(repr=False)
    adam_steps: int
    step: int
    tokens: int
    sequences: int
    flops: int
    lineage: Lineage
    regions: Mapping[str, Region] | None = field(default=None, repr=False)

    def with_event(self, event: Event) -> "TrainingState":
        """The same state with one event more."""
        return replace(self, lineage=(*self.lineage, event))
