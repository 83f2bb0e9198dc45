"""The growth certificate: what a growth changed, measured.

The *function*: logits before and after. The *trajectory*: the grown model and its parent, both
trained on the same batches with their own moments, clipping and decay, the masks held shut. A
wrong moment map, learning rate or decay passes every check at step 0 and fails here. And the
tensors: whether they are what the lineage says.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from teleflm.certificate.bench import ROWS, STEPS, Bench, in_memory, positions
from teleflm.certificate.function import function_error, random_tokens
from teleflm.certificate.record import Certificate
from teleflm.certificate.trajectory import own_text, sharpened, trajectory_error
from teleflm.config.model import ModelConfig
from teleflm.config.run import OptimizerConfig
from teleflm.growth.event import Event, Lineage
from teleflm.growth.grow import replayed
from teleflm.growth.operators import keeps_trajectory
from teleflm.growth.state import KINDS, LazyState, TrainingState
from teleflm.model.axes import parameter_names, parameter_of
from teleflm.model.region import row_stretches
from teleflm.parallel.ranks import Ranks

_BYTES_AT_A_TIME = 64 << 20


def certify(
    parent: TrainingState,
    child: TrainingState,
    *,
    optimizer: OptimizerConfig | None = None,
    document_mask: bool = False,
    steps: int = STEPS,
    seed: int = 0,
) -> Certificate:
    """Certify a growth: `child` as `grow` made it against the `parent` that it was made from.

    Args:
        parent, child: the two states.
        optimizer: the run's hyperparameters; rates above 1e-4 are lowered to it, and decay and
            clipping are made to bite.
        document_mask: whether the trajectory's text is cut as the run's is, see `DataConfig`.
        steps: updates of the trajectory, where the operators promise one.
        seed: of the tokens.

    Raises:
        CheckpointError: the two do not share a vocabulary.
    """
    bench = in_memory(sharpened(optimizer or OptimizerConfig(), parent.model))
    bench = replace(bench, document_mask=document_mask)
    return certify_on(bench, parent.lazy(), child.lazy(), steps=steps, seed=seed)


def certify_on(
    bench: Bench, parent: LazyState, child: LazyState, *, steps: int = STEPS, seed: int = 0
) -> Certificate:
    """Certify a growth with what there is; the same on every rank of the bench. Where nothing can
    be trained there, there is no trajectory.

    Raises:
        CheckpointError: the two do not share a vocabulary, or what is read is not finite.
    """
    shape = (ROWS, positions(parent.model, child.model) + 1)
    tokens = random_tokens(parent.model, child.model, shape, seed)
    growths = growths_since(parent.lineage, child.lineage)
    function = function_error(bench.network, parent, child, growths, tokens)
    regrown = is_regrown(parent, child, growths, bench.ranks)
    trajectory = None
    if bench.learner is not None:
        if not all(keeps_trajectory(event) for event in growths):
            steps = 0
        # Up to where it is broken on purpose: clones stay equal, and learn as what they are of.
        is_broken = regrown and any(event.imbalance for event in growths)
        states = parent, _unbroken(parent, growths) if is_broken else child
        text = _text(bench, parent, steps + 1, shape, seed)
        learners = [bench.learner(state) for state in states]
        at = parent.step, child.step
        trajectory = trajectory_error(learners, at, text, document_mask=bench.document_mask)
    certificate = Certificate(
        function,
        trajectory,
        tuple(event.operator for event in growths),
        regrown,
        rounded=bench.learner is None and not growths,
        tie=_tie(parent.model, child.model),
        layout={axis: getattr(bench.layout, axis) for axis in ("tp", "pp", "dp")},
    )
    # To the last digit, so that all come to the same verdict.
    return bench.ranks.from_first(lambda: certificate)


def _tie(before: ModelConfig, after: ModelConfig) -> Literal["kept", "dropped"] | None:
    if before.has_head:
        return None
    return "dropped" if after.has_head else "kept"


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


def is_regrown(
    parent: LazyState, child: LazyState, growths: Sequence[Event], ranks: Ranks
) -> bool | None:
    """Whether the child is bit for bit what these growths make of the parent, of which each rank
    compares a share; None without any."""
    if not growths:
        return None
    again = replayed(parent, growths)
    pieces = [
        (name, region)
        for name in parameter_names(child.model)
        for region in row_stretches(parameter_of(name).shape(child.model), _BYTES_AT_A_TIME // 8)
    ]

    def share_is_equal() -> bool:
        return all(
            torch.equal(again.read(kind, name, region), child.read(kind, name, region))
            for name, region in pieces[ranks.rank :: ranks.count]
            for kind in KINDS
        )

    return all(ranks.gathered(share_is_equal))


def _text(
    bench: Bench, parent: LazyState, batches: int, shape: tuple[int, int], seed: int
) -> Tensor:
    """Batches for all ranks (batches, B, S + 1) of what the parent writes."""
    written = own_text(bench.network(parent, torch.float64), batches * shape[0], shape[1], seed)
    # However many ranks there are, writing takes the same time: they read sequences over again.
    wanted = torch.arange(batches * shape[0] * bench.ranks.count) % len(written)
    read = written[wanted].view(batches, -1, shape[1])
    return bench.ranks.from_first(lambda: read)


def _unbroken(parent: LazyState, growths: Sequence[Event]) -> LazyState:
    """The grown state with its clones left equal, in float64."""
    kept = [
        event.model_copy(update={"symmetry": "keep"}) if event.operator == "clone" else event
        for event in growths
    ]
    return replayed(parent.to(torch.float64), kept)
