"""The loss is a mean over the targets that count of the whole global batch."""

from dataclasses import replace

import pytest
import torch

from teleflm.errors import DataError
from teleflm.growth.state import TrainingState
from teleflm.model.batch import IGNORED, Batch
from teleflm.parallel.engine import OneProcess
from teleflm.training.learner import Learner
from tests.growing import OPTIMIZER, PARENT, batch_of, trained_state, uneven


@pytest.fixture(scope="module")
def state() -> TrainingState:
    return trained_state(PARENT, 2)


def learner_of(state: TrainingState, micro_batch: int | None) -> Learner:
    engine = OneProcess(
        PARENT, torch.float64, torch.device("cpu"), precision="fp64", micro_batch=micro_batch
    )
    return Learner(state, OPTIMIZER, engine=engine)


def uneven_batch() -> Batch:
    """Eight rows: four without a target that counts, then 1, 3, 5 and 7 at the most."""
    return uneven(Batch.next_tokens(batch_of(PARENT, 3, rows=8)), 3)


@pytest.mark.parametrize("micro_batch", [4, 2, 1])
def test_micro_batches_of_very_uneven_numbers_of_targets(
    state: TrainingState, micro_batch: int
) -> None:
    one, many = (learner_of(state, size) for size in (None, micro_batch))
    losses = [learner.accumulate(uneven_batch()).item() for learner in (one, many)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-12)
    for whole, summed in zip(one.engine.shards, many.engine.shards, strict=True):
        assert (whole.gradient - summed.gradient).norm() <= 1e-12 * whole.gradient.norm()


def test_the_mean_is_over_those_that_count(state: TrainingState) -> None:
    learner, batch = learner_of(state, None), uneven_batch()
    counted = batch.targets != IGNORED
    numbers = counted.sum(dim=1).tolist()
    assert numbers[:4] == [0, 0, 0, 0] and len(set(numbers[4:])) > 2
    nats = learner.engine.token_scores(batch).nats
    expected = nats[counted].mean().item()
    assert learner.accumulate(batch).item() == pytest.approx(expected, rel=1e-12)


def test_a_batch_without_targets_is_named_by_its_step(state: TrainingState) -> None:
    learner = learner_of(replace(state, step=41), None)
    batch = uneven_batch()
    nothing = batch._replace(targets=torch.full_like(batch.targets, IGNORED))
    with pytest.raises(DataError, match="step 41: none of the global batch's 128 targets"):
        learner.accumulate(nothing)
