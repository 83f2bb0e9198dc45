"""Masks, and folding them away: at every moment of a ramp the model equals an ordinary one."""

from dataclasses import dataclass

import torch
from torch import Tensor

from teleflm.config.growth import Operator
from teleflm.config.model import ModelConfig
from teleflm.growth.event import Event, Lineage, last_masks
from teleflm.growth.maps import GrowthMap
from teleflm.growth.ramp import Ramp, ramp_at
from teleflm.growth.state import Tensors
from teleflm.model.axes import Axis, Parameter, layer_of, parameter_of


def growth_map(event: Event) -> GrowthMap:
    """The map of a growth event."""
    assert event.source is not None and event.is_growth, "only growths have a map"
    # An Event is checked, so that its operator is one of a growth here.
    operator: Operator = event.operator  # type: ignore[assignment]
    return GrowthMap(operator, event.source, event.to, event.layers, event.copies)


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
    return model.model_copy(
        update={
            "rms_norm_eps": model.rms_norm_eps * ramp.width_fraction,
            "input_mult": ramp.input_multiplier,
            "output_mult": ramp.logit_multiplier * model.hidden_size / model.mup_base_width,
        }
    )


def fold(
    model: ModelConfig, weights: Tensors, lineage: Lineage, step: int
) -> tuple[ModelConfig, Tensors]:
    """The ordinary model that equals the masked one at `step`.

    c goes into the hidden axis of what writes the stream, into the columns that read new heads
    and FFN units and into new layers' outputs; gains take √(n/D). Products are formed in float64
    and rounded once.
    """
    ramp = ramp_at(model, lineage, step)
    event = last_masks(lineage)
    if ramp.progress == 1.0 or event is None:
        return model, weights
    growth = growth_map(event)
    folded: Tensors = {}
    for name, weight in weights.items():
        parameter = parameter_of(name)
        value = weight.double()
        if parameter.is_gain:
            value = value * ramp.width_fraction**0.5
        for dim, mask in enumerate(dim_masks(growth, name, parameter)):
            if mask is not None:
                line = mask.values(growth, ramp.progress)
                value = value * line.reshape([-1 if d == dim else 1 for d in range(value.ndim)])
        folded[name] = value.to(weight.dtype)
    return folded_model(model, ramp), folded
