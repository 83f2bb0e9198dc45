"""What a checkpoint holds: in memory, or read piece by piece."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor

from teleflm.config.model import ModelConfig
from teleflm.growth.event import AnyOperator, Event, Lineage
from teleflm.model.axes import LAST_GAIN, parameter_names, parameter_of
from teleflm.model.region import Region, whole

Tensors = dict[str, Tensor]
Kind = Literal["weights", "exp_avg", "exp_avg_sq"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Read = Callable[[Kind, str, Region], Tensor]
"""Gives a region of a tensor of a state, for the caller to keep."""


def all_finite(tensor: Tensor) -> bool:
    """Whether no entry is NaN or infinite; the extremes of what holds a NaN are NaN."""
    return not tensor.numel() or bool(torch.stack(torch.aminmax(tensor)).isfinite().all())


@dataclass(frozen=True)
class Standing:
    """Where training stands.

    Attributes:
        model: the shape of the tensors.
        adam_steps: Adam's own count of updates.
        step, tokens, sequences, flops: how far the whole lineage has come.
        lineage: the events so far, the newest last.
    """

    model: ModelConfig
    adam_steps: int
    step: int
    tokens: int
    sequences: int
    flops: int
    lineage: Lineage

    def with_event(self, event: Event) -> Self:
        """The same with one event more."""
        return replace(self, lineage=(*self.lineage, event))

    def event(self, operator: AnyOperator, to: ModelConfig, **more: Any) -> Event:
        """What happens here: the model becomes `to`, and the counts are these."""
        return Event(
            operator=operator,
            to=to,
            step=self.step,
            tokens=self.tokens,
            sequences=self.sequences,
            flops=self.flops,
            **more,
        )

    def standing(self) -> "Standing":
        """This without any tensors."""
        return Standing(
            self.model,
            self.adam_steps,
            self.step,
            self.tokens,
            self.sequences,
            self.flops,
            self.lineage,
        )


@dataclass(frozen=True, kw_only=True)
class TrainingState(Standing):
    """Everything that training goes on from, in memory.

    Attributes:
        weights: master weights under Llama's keys.
        exp_avg, exp_avg_sq: Adam's first and second moments under the same keys.
        regions: which tensors this process holds and what part of each; None where the tensors
            are whole and all there.
    """

    weights: Tensors = field(repr=False)
    exp_avg: Tensors = field(repr=False)
    exp_avg_sq: Tensors = field(repr=False)
    regions: Mapping[str, Region] | None = field(default=None, repr=False)

    def tensors(self, kind: Kind) -> Tensors:
        """The tensors of one kind."""
        tensors: Tensors = getattr(self, kind)
        return tensors

    def lazy(self) -> "LazyState":
        """The same, to be read from; the tensors must be whole and all there."""
        assert self.regions is None
        dtype = self.weights[LAST_GAIN].dtype

        def read(kind: Kind, name: str, region: Region) -> Tensor:
            return self.tensors(kind)[name][region].clone()

        return LazyState(**vars(self.standing()), read=read, dtype=dtype)


@dataclass(frozen=True, kw_only=True)
class LazyState(Standing):
    """A state of which any piece can be had: on disk, or yet to be made.

    Attributes:
        read: gives a region of one of its tensors.
        dtype: of its weights and moments; single tensors may have another.
    """

    read: Read = field(repr=False)
    dtype: torch.dtype

    @classmethod
    def untrained(cls, event: Event, read: Read, dtype: torch.dtype) -> "LazyState":
        """A state before any step, as the first event of its lineage made it."""
        counts = dict.fromkeys(("adam_steps", "step", "tokens", "sequences", "flops"), 0)
        return cls(model=event.to, lineage=(event,), read=read, dtype=dtype, **counts)

    def weight(self, name: str, region: Region) -> Tensor:
        """A region of a weight."""
        return self.read("weights", name, region)

    def to(self, dtype: torch.dtype) -> "LazyState":
        """The same, with every tensor in this precision."""

        def read(kind: Kind, name: str, region: Region) -> Tensor:
            return self.read(kind, name, region).to(dtype)

        return replace(self, read=read, dtype=dtype)

    def in_memory(self, regions: Mapping[str, Region] | None = None) -> TrainingState:
        """These regions of the state, or all of it."""
        held = regions
        if held is None:
            names = parameter_names(self.model)
            held = {name: whole(parameter_of(name).shape(self.model)) for name in names}
        weights, first, second = (
            {name: self.read(kind, name, region) for name, region in held.items()} for kind in KINDS
        )
        return TrainingState(
            **vars(self.standing()),
            weights=weights,
            exp_avg=first,
            exp_avg_sq=second,
            regions=regions,
        )
