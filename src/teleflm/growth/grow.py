"""Growth of a whole training state by masks."""

from collections.abc import Callable, Sequence
from dataclasses import replace

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


def grow(
    state: TrainingState,
    to: ModelConfig,
    *,
    ramp: int,
    seed: int = 0,
    place: str | Sequence[int] = "even",
    distances: Sequence[float] | None = None,
    parent: str | None = None,
) -> TrainingState:
    """Grow weights and both moments to the shape `to` (MSG, arXiv 2305.02869).

    New weights get an ordinary µP init of the target, which the masks hold back; new moments are
    zero, and the count of Adam's steps stays (see training/fresh.py for the first updates).

    Args:
        state: what to grow.
        to: the target; no size may be smaller than before.
        ramp: steps in which the masks open, at least 1.
        seed: of the new weights.
        place: where new layers go, see `place_layers`.
        distances: for place `distance`, see `layer_distances`.
        parent: SHA-256 of the manifest of the checkpoint that is grown, for the lineage.

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
    grown = replace(
        state,
        model=to,
        weights=_grow(state.weights, growth, lambda name: initial_value(to, name, seed)),
        exp_avg=_grow(state.exp_avg, growth, lambda name: _zeros(to, name)),
        exp_avg_sq=_grow(state.exp_avg_sq, growth, lambda name: _zeros(to, name)),
    )
    return grown.with_event(event)


def _zeros(model: ModelConfig, name: str) -> Tensor:
    return torch.zeros(parameter_of(name).shape(model))


def _grow(old: Tensors, growth: GrowthMap, new_value: Callable[[str], Tensor]) -> Tensors:
    """Each target tensor: new values with the old ones written over them at their places."""
    grown: Tensors = {}
    dtype = next(iter(old.values())).dtype
    for name in parameter_names(growth.child):
        value = new_value(name).to(dtype)
        source = growth.parent_name(name)
        if source is not None:
            index = [growth.index(axis) for axis in parameter_of(name).axes]
            value[torch.meshgrid(*index, indexing="ij")] = old[source]
        grown[name] = value
    return grown
