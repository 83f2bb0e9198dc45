"""Growth of a whole training state."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from teleflm.config.growth import (
    DepthOperator,
    GrowthConfig,
    Symmetry,
    WidthConfig,
    with_grown_eps,
)
from teleflm.config.model import LAYER_KINDS, ModelConfig
from teleflm.errors import GrowthError
from teleflm.growth.event import Event
from teleflm.growth.kinds import with_kinds
from teleflm.growth.operators import grown_value
from teleflm.growth.place import copied_layers, place_layers
from teleflm.growth.plan import growth_steps
from teleflm.growth.ramp import ramp_at
from teleflm.growth.state import LazyState, Standing, TrainingState

# How far from equal the shares of clones are made; from 0.1 to 0.9 all do equally well
# (docs/growth_study.md).
_IMBALANCE = 0.5


@dataclass(frozen=True)
class Growth:
    """What is to be done to a state, of whatever shape.

    Attributes:
        to: the target; no size may be smaller than before.
        width, depth: the operators, see `growth/operators.py`.
        place: where new layers go, see `place_layers`.
        distances: for place `distance`, see `layer_distances`.
        ramp: steps in which masks open, at least 1.
        symmetry: what becomes of that of clones.
        seed: of new weights and of noise.
        parent: SHA-256 of the manifest of the checkpoint that is grown, for the lineage.
    """

    to: ModelConfig
    width: WidthConfig = field(default_factory=WidthConfig)
    depth: DepthOperator = "mask"
    place: str | Sequence[int] = "even"
    distances: Sequence[float] | None = None
    ramp: int = 5000
    symmetry: Symmetry = "noise"
    seed: int = 0
    parent: str | None = None

    @classmethod
    def of(cls, config: GrowthConfig, seed: int) -> "Growth":
        """What a configuration says."""
        return cls(
            to=config.to,
            width=config.width,
            depth=config.depth,
            place=config.place,
            ramp=config.ramp,
            symmetry=config.symmetry,
            seed=seed,
        )


def grow(
    state: TrainingState, to: ModelConfig, *, width: WidthConfig | str = "mask", **how: Any
) -> TrainingState:
    """Grow weights and both moments to the shape `to`, in memory; see `Growth` for the rest.

    The count of Adam's steps stays (see training/fresh.py for the first updates of new entries).

    Raises:
        GrowthError: a shape that the operators cannot reach, or a state whose masks are open.
    """
    if isinstance(width, str):
        width = WidthConfig.model_validate(width)
    return grow_lazily(state.lazy(), Growth(to, width, **how)).in_memory()


def grow_lazily(state: LazyState, growth: Growth) -> LazyState:
    """A grown state whose pieces are made as they are read.

    Raises:
        GrowthError: see `grow`.
    """
    return replayed(state, events_of(state, growth))


def events_of(standing: Standing, growth: Growth) -> list[Event]:
    """The events that a growth adds to a lineage, one for each operator that has something to do.

    Raises:
        GrowthError: see `grow`.
    """
    open_ramp = ramp_at(standing.model, standing.lineage, standing.step)
    if open_ramp.progress < 1.0:
        raise GrowthError(
            f"the last growth's masks are open to {open_ramp.progress:.2f} at step "
            f"{standing.step}; train to the end of its ramp first"
        )
    to = with_grown_eps(standing.model, growth.to, growth.width)
    # What a target does not say it has of its parent, as it was.
    names_kinds = any(getattr(to, field) != getattr(standing.model, field) for field in LAYER_KINDS)
    events: list[Event] = []
    for step in growth_steps(standing.model, to, growth.width, growth.depth):
        old, new = step.parent.num_hidden_layers, step.child.num_hidden_layers
        layers = place_layers(old, new, growth.place if new > old else "even", growth.distances)
        more: dict[str, Any] = {}
        if step.operator == "mask":
            more["ramp"] = growth.ramp
        if step.operator == "copy":
            more["copies"] = copied_layers(layers, new, growth.place)
        if step.operator == "clone":
            imbalance = _IMBALANCE if growth.symmetry != "keep" else 0.0
            more |= {"symmetry": growth.symmetry, "imbalance": imbalance}
        source = events[-1].to if events else step.parent
        is_named = names_kinds and new == to.num_hidden_layers
        child = with_kinds(
            step.child, source, layers, more.get("copies", ()), to if is_named else None
        )
        events.append(
            standing.event(
                step.operator,
                child,
                source=source,
                seed=growth.seed,
                layers=layers,
                parent=growth.parent,
                **more,
            )
        )
    return events


def replayed(state: LazyState, events: Sequence[Event]) -> LazyState:
    """A state after these growths of it, whose pieces are made as they are read."""
    for event in events:
        read = partial(grown_value, event, state.read, state.dtype)
        state = replace(state.with_event(event), model=event.to, read=read)
    return state
