"""The growth certificate: what a growth changed, measured.

The *function*: logits before and after. The *trajectory*: the grown model and its parent, both
trained on the same batches with their own moments, clipping and decay, the masks held shut. A
wrong moment map, learning rate or decay passes every check at step 0 and fails here. And the
tensors: whether they are what the lineage says.
"""

from collections.abc import Sequence

import torch

from teleflm.certificate.function import (
    function_error,
    random_tokens,
    streamed_function_error,
)
from teleflm.certificate.record import Certificate
from teleflm.certificate.trajectory import sharpened, trajectory_error
from teleflm.config.run import OptimizerConfig
from teleflm.growth.event import Event, Lineage
from teleflm.growth.grow import replayed
from teleflm.growth.operators import keeps_trajectory
from teleflm.growth.state import KINDS, LazyState, TrainingState
from teleflm.model.axes import parameter_names, parameter_of
from teleflm.model.region import row_stretches
from teleflm.training.learner import Learner

_STEPS = 30
_BYTES_AT_A_TIME = 64 << 20


def certify(
    parent: TrainingState,
    child: TrainingState,
    *,
    optimizer: OptimizerConfig | None = None,
    steps: int = _STEPS,
    seed: int = 0,
) -> Certificate:
    """Certify a growth: `child` as `grow` made it against the `parent` that it was made from.

    Args:
        parent, child: the two states.
        optimizer: the run's hyperparameters; rates above 1e-4 are lowered to it, and decay and
            clipping are made to bite.
        steps: updates of the trajectory, where the operators promise one.
        seed: of the tokens.

    Raises:
        CheckpointError: the two do not share a vocabulary.
    """
    config = sharpened(optimizer or OptimizerConfig(), parent)
    tokens = random_tokens(parent.model, child.model, seed)
    growths = growths_since(parent.lineage, child.lineage)
    (before, after), single = (
        [Learner(state, config, dtype) for state in (parent, child)]
        for dtype in (torch.float64, torch.float32)
    )
    # The live networks, masks and all: what is certified is what trains.
    function = function_error(
        [before.network, after.network], [each.network for each in single], growths, tokens
    )
    del single
    regrown = is_regrown(parent.lazy(), child.lazy(), growths)
    if regrown and any(event.imbalance for event in growths):
        # Broken on purpose: up to then, clones stay equal and learn as what they are clones of.
        del after
        after = Learner(_unbroken(parent, growths), config, torch.float64)
    if not all(keeps_trajectory(event) for event in growths):
        steps = 0
    trajectory = trajectory_error([before, after], (parent.step, child.step), steps, tokens, seed)
    return Certificate(function, trajectory, _operators(growths), regrown)


def certify_streamed(parent: LazyState, child: LazyState, *, seed: int = 0) -> Certificate:
    """Certify function and tensors of states that no memory holds; there is no trajectory.

    Raises:
        CheckpointError: the two do not share a vocabulary.
    """
    growths = growths_since(parent.lineage, child.lineage)
    tokens = random_tokens(parent.model, child.model, seed)
    function = streamed_function_error(parent, child, growths, tokens)
    return Certificate(
        function, None, _operators(growths), is_regrown(parent, child, growths), rounded=not growths
    )


def growths_since(before: Lineage, after: Lineage) -> tuple[Event, ...]:
    """The growths that lead from one lineage to the other, none where other events do too."""
    # What was certified later is the same growth.
    old, new = (
        [event.model_copy(update={"certificate": None}) for event in lineage]
        for lineage in (before, after)
    )
    more = after[len(before) :]
    leads = new[: len(old)] == old and all(event.is_growth for event in more)
    return more if leads else ()


def is_regrown(parent: LazyState, child: LazyState, growths: Sequence[Event]) -> bool | None:
    """Whether the child is bit for bit what these growths make of the parent; None without any."""
    if not growths:
        return None
    again = replayed(parent, growths)
    return all(
        torch.equal(again.read(kind, name, region), child.read(kind, name, region))
        for name in parameter_names(child.model)
        for region in row_stretches(parameter_of(name).shape(child.model), _BYTES_AT_A_TIME // 8)
        for kind in KINDS
    )


def _operators(growths: Sequence[Event]) -> tuple[str, ...]:
    return tuple(event.operator for event in growths)


def _unbroken(parent: TrainingState, growths: Sequence[Event]) -> TrainingState:
    """The grown state with its clones left equal, in float64."""
    kept = [
        event.model_copy(update={"symmetry": "keep"}) if event.operator == "clone" else event
        for event in growths
    ]
    return replayed(parent.lazy().to(torch.float64), kept).in_memory()
