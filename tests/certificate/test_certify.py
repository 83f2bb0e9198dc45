"""The certificate notices each rule that is broken."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

import teleflm.growth.ramp
from teleflm.certificate.bench import streamed
from teleflm.certificate.certify import certify, certify_on
from teleflm.certificate.record import Certificate
from teleflm.config.model import ModelConfig
from teleflm.errors import CheckpointError
from teleflm.growth.grow import grow
from teleflm.growth.maps import GrowthMap
from teleflm.growth.ramp import Ramp, ramp_between
from teleflm.growth.state import TrainingState
from teleflm.model.axes import Axis
from teleflm.model.batch import IGNORED, Batch
from teleflm.model.network import RMSNorm
from teleflm.parallel.layout import Layout
from teleflm.parallel.ranks import Ranks
from teleflm.training.learner import Learner
from tests.growing import CHILD, OPTIMIZER, PARENT, trained_state

Broken = Callable[[pytest.MonkeyPatch], None]


@pytest.fixture(scope="module")
def parent() -> TrainingState:
    return trained_state(PARENT, steps=5)


def test_a_right_growth_is_certified(parent: TrainingState) -> None:
    certificate = certify(parent, grow(parent, CHILD, ramp=9, seed=1), optimizer=OPTIMIZER)
    assert certificate.exact
    record = certificate.to_json()
    assert record["function"]["dtype"] == "float64"
    assert record["trajectory"]["steps"] == 30
    assert record["exact"] is True


def test_the_trajectory_is_trained_as_the_run_is(
    parent: TrainingState, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Batch] = []
    accumulate = Learner.accumulate

    def watched(learner: Learner, batch: Batch) -> torch.Tensor:
        read.append(batch)
        return accumulate(learner, batch)

    monkeypatch.setattr(Learner, "accumulate", watched)
    child = grow(parent, CHILD, ramp=9, seed=1)
    made = certify(parent, child, optimizer=OPTIMIZER, document_mask=True, steps=2)
    assert made.exact and len(read) == 6
    for batch in read:
        assert batch.starts is not None and batch.starts.unique().tolist() == [0, 16]
        assert (batch.targets == IGNORED).nonzero()[:, 1].tolist() == [15, 15]


def _ramp_with(monkeypatch: pytest.MonkeyPatch, change: Callable[[Ramp], Ramp]) -> None:
    """Break the start of a ramp; the parent, which has none, stays right."""

    def broken(parent: ModelConfig, child: ModelConfig, progress: float) -> Ramp:
        ramp = ramp_between(parent, child, progress)
        return change(ramp) if progress == 0.0 else ramp

    monkeypatch.setattr(teleflm.growth.ramp, "ramp_between", broken)


def plain_norm_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    _ramp_with(monkeypatch, lambda ramp: replace(ramp, width_fraction=1.0))


def eps_not_scaled(monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(norm: RMSNorm, x: torch.Tensor) -> torch.Tensor:
        fraction = norm.width_fraction if norm.width_fraction is not None else x.new_ones(())
        scale = torch.rsqrt(x.square().mean(-1, keepdim=True) + norm.eps)
        return x * scale * norm.weight * fraction.sqrt()

    monkeypatch.setattr(RMSNorm, "forward", forward)


def multiplier_of_the_child(monkeypatch: pytest.MonkeyPatch) -> None:
    _ramp_with(monkeypatch, lambda ramp: replace(ramp, logit_multiplier=CHILD.logit_multiplier))


def input_multiplier_of_the_child(monkeypatch: pytest.MonkeyPatch) -> None:
    _ramp_with(monkeypatch, lambda ramp: replace(ramp, input_multiplier=CHILD.input_mult))


def learning_rate_of_the_child(monkeypatch: pytest.MonkeyPatch) -> None:
    child = CHILD.hidden_size / CHILD.mup_base_width
    _ramp_with(monkeypatch, lambda ramp: replace(ramp, mup_ratio=child))


def heads_by_their_flat_index(monkeypatch: pytest.MonkeyPatch) -> None:
    def flat(growth: GrowthMap, axis: Axis) -> torch.Tensor:
        places = torch.arange(axis.size(growth.child))
        return places.masked_fill(places >= axis.size(growth.parent), -1)

    monkeypatch.setattr(GrowthMap, "sources", flat)


FUNCTION_BREAKERS = [
    plain_norm_statistics,
    eps_not_scaled,
    multiplier_of_the_child,
    input_multiplier_of_the_child,
    heads_by_their_flat_index,
]


@pytest.mark.parametrize("break_rule", FUNCTION_BREAKERS, ids=lambda rule: rule.__name__)
def test_a_changed_function_is_noticed(
    parent: TrainingState, monkeypatch: pytest.MonkeyPatch, break_rule: Broken
) -> None:
    break_rule(monkeypatch)
    grown = grow(parent, CHILD, ramp=9, seed=1)
    certificate = certify(parent, grown, optimizer=OPTIMIZER, steps=2)
    assert certificate.function.max_relative_logit_error > 1e-9
    assert not certificate.exact


def test_a_wrong_learning_rate_is_noticed(
    parent: TrainingState, monkeypatch: pytest.MonkeyPatch
) -> None:
    learning_rate_of_the_child(monkeypatch)
    certificate = certify(parent, grow(parent, CHILD, ramp=9, seed=1), optimizer=OPTIMIZER)
    _assert_only_the_trajectory_is_off(certificate)


def _reset_first(child: TrainingState) -> TrainingState:
    zeros = {name: torch.zeros_like(moment) for name, moment in child.exp_avg.items()}
    return replace(child, exp_avg=zeros)


def _reset_second(child: TrainingState) -> TrainingState:
    zeros = {name: torch.zeros_like(moment) for name, moment in child.exp_avg_sq.items()}
    return replace(child, exp_avg_sq=zeros)


def _restart_count(child: TrainingState) -> TrainingState:
    return replace(child, adam_steps=0)


def _shift_moments(child: TrainingState) -> TrainingState:
    # A map that is right for weights and off by one for one tensor's moments.
    name = "model.layers.0.mlp.down_proj.weight"
    moved = {**child.exp_avg_sq, name: child.exp_avg_sq[name].roll(1, dims=1)}
    return replace(child, exp_avg_sq=moved)


@pytest.mark.parametrize(
    "break_rule",
    [_reset_first, _reset_second, _restart_count, _shift_moments],
    ids=lambda rule: rule.__name__,
)
def test_wrong_moments_are_noticed(
    parent: TrainingState, break_rule: Callable[[TrainingState], TrainingState]
) -> None:
    broken = break_rule(grow(parent, CHILD, ramp=9, seed=1))
    _assert_only_the_trajectory_is_off(certify(parent, broken, optimizer=OPTIMIZER))


def test_wrong_decay_is_noticed(parent: TrainingState, monkeypatch: pytest.MonkeyPatch) -> None:
    # Also of a run that has none: the certificate makes it bite.
    real = Learner.update

    def undecayed(learner: Learner, step: int, factor: float) -> None:
        if learner.model == CHILD:
            learner.config = learner.config.model_copy(update={"weight_decay": 0.0})
        real(learner, step, factor)

    monkeypatch.setattr(Learner, "update", undecayed)
    grown = grow(parent, CHILD, ramp=9, seed=1)
    without = OPTIMIZER.model_copy(update={"weight_decay": 0.0})
    _assert_only_the_trajectory_is_off(certify(parent, grown, optimizer=without))


def test_wrong_clipping_is_noticed(parent: TrainingState, monkeypatch: pytest.MonkeyPatch) -> None:
    # A norm over the child's own tensors alone, say; moments alone make it visible in Adam.
    real = Learner.clip

    def unclipped(learner: Learner, largest: float) -> torch.Tensor:
        return real(learner, 1e9 if learner.model == CHILD else largest)

    monkeypatch.setattr(Learner, "clip", unclipped)
    grown = grow(parent, CHILD, ramp=9, seed=1)
    _assert_only_the_trajectory_is_off(certify(parent, grown, optimizer=OPTIMIZER))


def test_a_parent_in_its_first_steps_is_certified() -> None:
    # Its steps are wild: on random tokens rounding alone would break the bound.
    config = OPTIMIZER.model_copy(update={"learning_rate": 0.1, "matrix_learning_rate": 0.1})
    for steps in (0, 1, 3):
        young = trained_state(PARENT, steps)
        assert certify(young, grow(young, CHILD, ramp=9, seed=1), optimizer=config).exact


def _assert_only_the_trajectory_is_off(certificate: Certificate) -> None:
    assert certificate.function.max_relative_logit_error <= 1e-12
    assert certificate.trajectory is not None
    assert certificate.trajectory.max_relative_loss_difference > 1e-9
    assert not certificate.exact


def test_another_vocabulary_is_another_model(parent: TrainingState) -> None:
    other = trained_state(PARENT.model_copy(update={"vocab_size": 54}), steps=1)
    with pytest.raises(CheckpointError, match="53 and 54 tokens"):
        certify(parent, other)


def test_the_layer_where_two_models_part_is_named(parent: TrainingState) -> None:
    grown = grow(parent, CHILD, ramp=9, seed=1, place=(0, 0))
    assert grown.lineage[-1].layers == (0, 3)
    right = certify(parent, grown, optimizer=OPTIMIZER)
    assert right.first_difference is None and right.regrown
    assert len(right.function.layers) == 1 + PARENT.num_hidden_layers
    for name, where in {
        "model.embed_tokens.weight": "embedding",
        "model.layers.0.mlp.down_proj.weight": "layer 0",
        "model.layers.3.self_attn.q_proj.weight": "layer 1",
        "lm_head.weight": "head",
    }.items():
        weight = grown.weights[name].clone()
        weight[: PARENT.vocab_size, 0] *= 1.001
        broken = replace(grown, weights={**grown.weights, name: weight})
        certificate = certify(parent, broken, optimizer=OPTIMIZER, steps=1)
        assert certificate.first_difference == where
        assert certificate.regrown is False and not certificate.exact


def test_a_new_weight_that_is_not_what_the_seed_gives_is_noticed(parent: TrainingState) -> None:
    # It changes neither function nor trajectory: the masks are shut.
    grown = grow(parent, CHILD, ramp=9, seed=1)
    name = "model.layers.0.self_attn.q_proj.weight"
    weight = grown.weights[name].clone()
    weight[-1, -1] += 1e-3
    certificate = certify(parent, replace(grown, weights={**grown.weights, name: weight}))
    assert certificate.function.max_relative_logit_error <= 1e-12
    assert certificate.regrown is False and not certificate.exact


def test_streamed_it_is_the_same_function(parent: TrainingState) -> None:
    bench = streamed(Ranks(), Layout())
    for width in ("mask", "zero"):
        grown = grow(parent, CHILD, ramp=9, seed=1, width=width)
        certificate = certify_on(bench, parent.lazy(), grown.lazy())
        assert certificate.exact and certificate.regrown and certificate.trajectory is None
        in_memory = certify(parent, grown, steps=1)
        for figure in ("max_relative_logit_error", "float32_max_relative_logit_error"):
            read, live = (getattr(each.function, figure) for each in (certificate, in_memory))
            assert read == pytest.approx(live, rel=20), "the same order of magnitude"
        broken = replace(grown, exp_avg={**grown.exp_avg, "lm_head.weight": torch.zeros(53, 37)})
        assert not certify_on(bench, parent.lazy(), broken.lazy()).exact
