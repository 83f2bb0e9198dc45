"""Masks, and folding them away: at every moment of a ramp the model equals an ordinary one."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from teleflm.config.model import ModelConfig
from teleflm.growth.event import Event, last_masks
from teleflm.growth.maps import GrowthMap
from teleflm.growth.ramp import Ramp, ramp_at
from teleflm.growth.state import Kind, LazyState
from teleflm.model.axes import LAST_GAIN, Axis, Parameter, layer_of, parameter_of
from teleflm.model.region import Region


def growth_map(event: Event) -> GrowthMap:
    """The map of a growth event."""
    assert event.source is not None, "a growth has a model before it"
    return GrowthMap(event.grown_by, event.source, event.to, event.layers, event.copies)


@dataclass(frozen=True)
class DimMask:
    """What holds back one dim of a tensor: its axis's new entries, and a new layer's branch."""

    axis: Axis
    holds_entries: bool
    holds_branch: bool

    def values(self, growth: GrowthMap, progress: float) -> Tensor:
        """The mask, float64: 1 where nothing is held back, else `progress` for each reason."""
        mask = torch.ones(self.axis.size(growth.child), dtype=torch.float64)
        if self.holds_entries:
            mask[~growth.is_old(self.axis)] = progress
        return mask * progress if self.holds_branch else mask


def dim_masks(growth: GrowthMap, name: str, parameter: Parameter) -> list[DimMask | None]:
    """The mask of each dim of tensor `name`; None where nothing is held back."""
    is_new_branch = parameter.writes_branch and layer_of(name) not in growth.layers
    masks: list[DimMask | None] = []
    for dim, axis in enumerate(parameter.axes):
        mask = DimMask(
            axis,
            holds_entries=axis in parameter.folds and growth.grows(axis),
            holds_branch=is_new_branch and dim == 0,
        )
        masks.append(mask if mask.holds_entries or mask.holds_branch else None)
    return masks


def folded_model(model: ModelConfig, ramp: Ramp) -> ModelConfig:
    """The ordinary model's shape: eps · n/D, and multipliers as they stand at this moment."""
    if ramp.progress == 1.0:
        return model
    width, base = model.mup_widths()
    return model.model_copy(
        update={
            "rms_norm_eps": model.rms_norm_eps * ramp.width_fraction,
            "input_mult": ramp.input_multiplier,
            "output_mult": ramp.logit_multiplier * width / base,
        }
    )


def folded(state: LazyState) -> LazyState:
    """The ordinary model that equals the masked one at this step, its moments as they are.

    c goes into the hidden axis of what writes the stream, into the columns that read new heads
    and FFN units and into new layers' outputs; the stream's gains take √(n/D), and what goes into a
    norm by head too, whose eps is theirs. The mask of a tied embedding is none of the head's: the
    last gain takes 1/c, which at c = 0 may be anything. Weights come in float64.
    """
    ramp = ramp_at(state.model, state.lineage, state.step)
    event = last_masks(state.lineage)
    if ramp.progress == 1.0 or event is None:
        return state
    growth = growth_map(event)

    def read(kind: Kind, name: str, region: Region) -> Tensor:
        value = state.read(kind, name, region)
        if kind != "weights":
            return value
        parameter, value = parameter_of(name), value.double()
        if parameter.is_on_eps_scale(state.model):
            value *= ramp.width_fraction**0.5
        if name == LAST_GAIN and not state.model.has_head and ramp.progress > 0.0:
            value /= DimMask(Axis.HIDDEN, True, False).values(growth, ramp.progress)[region]
        return held_back(value, growth, name, region, ramp.progress)

    return replace(state, model=folded_model(state.model, ramp), read=read)


def held_back(
    value: Tensor, growth: GrowthMap, name: str, region: Region, progress: float
) -> Tensor:
    """A region of tensor `name`, multiplied in place by its masks at this progress."""
    for dim, mask in enumerate(dim_masks(growth, name, parameter_of(name))):
        if mask is not None:
            line = mask.values(growth, progress)[region[dim]].to(value.dtype)
            value *= line.reshape([-1 if d == dim else 1 for d in range(value.ndim)])
    return value
