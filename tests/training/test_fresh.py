"""No new weight's first update exceeds the learning rate, at any betas."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from teleflm.config.run import OptimizerConfig
from teleflm.growth.grow import grow
from teleflm.growth.operators import new_lines, on_any_line
from teleflm.model.batch import Batch
from teleflm.training.fresh import FreshMoments
from teleflm.training.learner import Learner
from tests.growing import CHILD, OPTIMIZER, PARENT, batch_of, train_on, trained_state

BETAS = [(0.9, 0.95), (0.9, 0.999), (0.0, 0.9), (0.99, 0.9), (0.5, 0.5)]
RAMP = 4


def learner_of(betas: tuple[float, float], ramp: int = RAMP) -> Learner:
    """A child long after its parent's start, so that Adam's count is late."""
    config = OPTIMIZER.model_copy(update={"betas": betas, "weight_decay": 0.0})
    late = replace(trained_state(PARENT, 5), adam_steps=5000)
    return Learner(grow(late, CHILD, ramp=ramp, seed=1), config, torch.float64)


def new_entries(learner: Learner) -> dict[str, Tensor]:
    return {
        name: on_any_line(new_lines(learner.lineage[-1:], name))
        for name, _ in learner.network.named_parameters()
    }


def first_updates(
    learner: Learner, steps: int, skipped: int | None = None
) -> Iterator[tuple[str, float]]:
    """For each tensor and step the largest first update of a new entry, over its learning rate."""
    waiting = new_entries(learner)
    for step in range(5, 5 + steps):
        before = {name: w.detach().clone() for name, w in learner.network.named_parameters()}
        # Few tokens a step, so that most rows of the embedding wait for theirs.
        batch = batch_of(CHILD, step, rows=1, length=6)
        if step == skipped:
            learner.accumulate(Batch.next_tokens(batch))
            learner.skip()
            learner.move(step + 1)
            continue
        train_on(learner, batch, step, clip=1e9)
        rates = {
            id(weight): group["lr"]
            for group in learner.optimizer.param_groups
            for weight in group["params"]
        }
        for name, weight in learner.network.named_parameters():
            change = (weight.detach() - before[name]).abs()
            first = waiting[name] & (change > 0)
            if first.any():
                yield name, (change[first].max() / rates[id(weight)]).item()
            waiting[name] &= ~first


@pytest.mark.parametrize("ramp", [1, 2, RAMP])
@pytest.mark.parametrize("betas", BETAS)
def test_first_updates_are_within_the_learning_rate(betas: tuple[float, float], ramp: int) -> None:
    # More steps than the ramp has: an embedding row may come after its end.
    found = list(first_updates(learner_of(betas, ramp), 2 * RAMP))
    assert {name for name, _ in found} == set(new_entries(learner_of(betas)))
    assert max(share for _, share in found) <= 1.0 + 1e-12
    embedding = [share for name, share in found if "embed_tokens" in name]
    assert len(embedding) > RAMP  # rows of which some came late


def test_they_wait_where_the_step_that_opens_the_masks_is_skipped() -> None:
    found = list(first_updates(learner_of((0.9, 0.999), ramp=1), 2 * RAMP, skipped=6))
    assert {name for name, _ in found} == set(new_entries(learner_of((0.9, 0.999))))
    assert max(share for _, share in found) <= 1.0 + 1e-12


def test_plain_adam_would_exceed_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FreshMoments, "seed", lambda *_: None)
    found = list(first_updates(learner_of((0.9, 0.999)), 2))
    assert max(share for _, share in found) > 3.1  # (1 − β1)/√(1 − β2)


def test_old_entries_are_left_alone() -> None:
    # A late first token of an old row is Adam's own affair, as it was the parent's.
    state = trained_state(PARENT)
    never = sorted(set(range(PARENT.vocab_size)) - {3})
    learner = Learner(grow(state, CHILD, ramp=RAMP, seed=1), OPTIMIZER, torch.float64)
    weight = learner.network.model.embed_tokens.weight
    seen = learner.optimizer.state[weight]["exp_avg_sq"]
    seen[3, : PARENT.hidden_size] = 0.0
    weight.grad = torch.ones_like(weight)
    for other in learner.network.parameters():
        other.grad = torch.ones_like(other)
    learner._fresh.seed(learner.optimizer, learner.adam_steps, 5)
    assert (seen[3, : PARENT.hidden_size] == 0).all()
    assert (seen[3, PARENT.hidden_size :] > 0).all()
    assert (seen[never, PARENT.hidden_size :] > 0).all()


def test_a_first_training_is_plain_adamw() -> None:
    config = OptimizerConfig(learning_rate=1e-3, betas=(0.9, 0.999))
    learner = Learner(trained_state(PARENT, 1), config, torch.float64)
    assert not learner._fresh._for_ever and not learner._fresh._at_first


def test_columns_of_an_earlier_growth_are_still_watched() -> None:
    # A token that first appears after the second growth meets the first one's columns unused.
    once = grow(trained_state(PARENT), CHILD, ramp=1, seed=1)
    larger = CHILD.model_copy(update={"hidden_size": 50})
    twice = grow(replace(once, step=once.step + 1, adam_steps=5000), larger, ramp=1, seed=2)
    learner = Learner(twice, OPTIMIZER, torch.float64)
    for weight in learner.network.parameters():
        weight.grad = torch.ones_like(weight)
    learner._fresh.seed(learner.optimizer, learner.adam_steps, twice.step)
    second = learner.optimizer.state[learner.network.model.embed_tokens.weight]["exp_avg_sq"]
    assert (second[:, PARENT.hidden_size :] > 0).all()
