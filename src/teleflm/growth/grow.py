"""Growth of a whole training state by masks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from teleflm.config.model import ModelConfig
from teleflm.errors import GrowthError
from teleflm.growth.event import Event
from teleflm.growth.maps import GrowthMap, check_growth
from teleflm.growth.place import place_layers
from teleflm.growth.ramp import ramp_at
from teleflm.growth.state import Tensors, TrainingState
from teleflm.model.axes import parameter_names, parameter_of
from teleflm.model.init import initial_value
from teleflm.model.region import Region, region_shape, whole


def grow(
    state: TrainingState,
    to: ModelConfig,
    *,
    ramp: int,
    seed: int = 0,
    place: str | Sequence[int] = "even",
    distances: Sequence[float] | None = None,
    parent: str | None = None,
    regions: Mapping[str, Region] | None = None,
) -> TrainingState:
    """Grow weights and both moments to the shape `to` (MSG, arXiv 2305.02869).

    New weights get an ordinary µP init of the target, which the masks hold back; new moments are
    zero, and the count of Adam's steps stays (see training/fresh.py for the first updates).

    Args:
        state: what to grow; with `regions`, what `parent_regions` says of it, or all of it.
        to: the target; no size may be smaller than before.
        ramp: steps in which the masks open, at least 1.
        seed: of the new weights.
        place: where new layers go, see `place_layers`.
        distances: for place `distance`, see `layer_distances`.
        parent: SHA-256 of the manifest of the checkpoint that is grown, for the lineage.
        regions: what this process is to hold of the grown tensors; all unless given.

    Raises:
        GrowthError: a shape that masks cannot reach, or a state whose last ramp is still open.
    """
    check_growth(state.model, to)
    open_ramp = ramp_at(state.model, state.lineage, state.step)
    if open_ramp.progress < 1.0:
        raise GrowthError(
            f"the last growth's masks are open to {open_ramp.progress:.2f} at step {state.step}; "
            "train to the end of its ramp first"
        )
    layers = place_layers(state.model.num_hidden_layers, to.num_hidden_layers, place, distances)
    event = Event(
        operator="mask",
        source=state.model,
        to=to,
        step=state.step,
        tokens=state.tokens,
        sequences=state.sequences,
        flops=state.flops,
        seed=seed,
        ramp=ramp,
        layers=layers,
        parent=parent,
    )
    growth = GrowthMap(state.model, to, layers)
    held = regions
    if held is None:
        held = {name: whole(parameter_of(name).shape(to)) for name in parameter_names(to)}
    part = _Part(growth, held, is_whole=state.regions is None)
    grown = replace(
        state,
        model=to,
        weights=part.grow(state.weights, lambda name: initial_value(to, name, seed, held[name])),
        exp_avg=part.grow(state.exp_avg, lambda name: torch.zeros(region_shape(held[name]))),
        exp_avg_sq=part.grow(state.exp_avg_sq, lambda name: torch.zeros(region_shape(held[name]))),
        regions=regions,
    )
    return grown.with_event(event)


def parent_regions(growth: GrowthMap, regions: Mapping[str, Region]) -> dict[str, Region]:
    """What a process needs of the parent's tensors to grow these regions of the child's."""
    needed = (growth.parent_region(name, region) for name, region in regions.items())
    return dict(pair for pair in needed if pair is not None)


@dataclass(frozen=True)
class _Part:
    """What one process grows: `regions` of the child, from a parent that it has whole or not."""

    growth: GrowthMap
    regions: Mapping[str, Region]
    is_whole: bool

    def grow(self, old: Tensors, new_value: Callable[[str], Tensor]) -> Tensors:
        """Each target tensor: new values with the old ones written over them at their places."""
        grown: Tensors = {}
        dtype = next((tensor.dtype for tensor in old.values()), torch.float32)
        for name, region in self.regions.items():
            value = new_value(name).to(dtype)
            source = self.growth.parent_region(name, region)
            if source is not None:
                parent, where = source
                kept = old[parent][where] if self.is_whole else old[parent]
                axes = parameter_of(name).axes
                index = [self.growth.index(a, p) for a, p in zip(axes, region, strict=True)]
                value[torch.meshgrid(*index, indexing="ij")] = kept
            grown[name] = value
        return grown
