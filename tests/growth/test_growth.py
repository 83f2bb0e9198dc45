"""Growth by masks changes nothing, for any shapes, and folds at every moment."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from teleflm.certificate.certify import certify
from teleflm.certificate.function import relative_error
from teleflm.config.model import ModelConfig
from teleflm.config.run import OptimizerConfig
from teleflm.errors import GrowthError
from teleflm.growth.fold import folded, folded_model
from teleflm.growth.grow import Growth, grow, grow_lazily
from teleflm.growth.maps import GrowthMap
from teleflm.growth.operators import new_lines, on_any_line
from teleflm.growth.ramp import ramp_between
from teleflm.growth.state import TrainingState
from teleflm.model.axes import PARAMETERS, Axis, parameter_names, parameter_of
from teleflm.model.init import build_model, initial_value
from teleflm.training.learner import Learner
from tests.growing import (
    CHILD,
    OPTIMIZER,
    PARENT,
    batch_of,
    fresh_state,
    parents_and_children,
    train_on,
    trained_state,
)


@settings(max_examples=40)
@given(parents_and_children(), st.sampled_from(["even", "stack"]), st.integers(0, 99))
def test_any_growth_keeps_function_and_trajectory(
    shapes: tuple[ModelConfig, ModelConfig], place: str, seed: int
) -> None:
    parent, child = shapes
    state = trained_state(parent, seed=seed)
    grown = grow(state, child, ramp=100, seed=seed + 1, place=place)
    certificate = certify(state, grown, optimizer=OPTIMIZER, steps=30, seed=seed)
    assert certificate.function.max_relative_logit_error <= 1e-12
    function = certificate.function
    assert function.float32_max_relative_logit_error <= max(1e-5, 10 * function.float32_rounding)
    assert certificate.trajectory is not None
    assert certificate.trajectory.max_relative_loss_difference <= 1e-12
    assert certificate.exact


@settings(max_examples=25)
@given(parents_and_children(), st.integers(0, 100))
def test_folded_on_the_ramp_it_is_the_masked_model(
    shapes: tuple[ModelConfig, ModelConfig], progress: int
) -> None:
    parent, child = shapes
    grown = grow(trained_state(parent), child, ramp=100, seed=3)
    for at in {37, progress}:
        state = replace(grown, step=grown.step + at)
        masked = Learner(state, OPTIMIZER, torch.float64).network
        plain = folded(state.lazy()).in_memory()
        ordinary = build_model(plain.model, plain.weights, torch.float64)
        assert relative_error(masked, ordinary, batch_of(child, 0)) <= 1e-12


def test_a_mask_half_open_is_another_function() -> None:
    # Else the two tests above could pass on masks that never open.
    state = trained_state(PARENT)
    grown = grow(state, CHILD, ramp=100, seed=3)
    open_half = replace(grown, step=grown.step + 50)
    networks = [Learner(s, OPTIMIZER, torch.float64).network for s in (state, open_half)]
    assert relative_error(networks[0], networks[1], batch_of(PARENT, 0)) > 1e-2


def _trained_through(grown: TrainingState, steps: int) -> Learner:
    learner = Learner(grown, OPTIMIZER, torch.float64)
    for step in range(grown.step, grown.step + steps):
        train_on(learner, batch_of(grown.model, step), step)
    return learner


def test_after_the_ramp_it_is_an_ordinary_model_of_the_target() -> None:
    grown = grow(trained_state(PARENT), CHILD, ramp=6, seed=3)
    learner = _trained_through(grown, 6)
    assert all(
        buffer is None
        for m in learner.network.modules()
        for buffer in m._buffers.values()
        if buffer is not getattr(m, "cos", None) and buffer is not getattr(m, "sin", None)
    )
    ordinary = build_model(CHILD, learner.tensors()[0], torch.float64)
    tokens = batch_of(CHILD, 1)
    assert torch.equal(learner.network(tokens), ordinary(tokens))
    # … with the target's own learning rate.
    _trained_more(learner, grown.step + 6)
    rates = {g["is_matrix_like"]: g["lr"] for g in learner.optimizer.param_groups}
    assert rates[True] == OPTIMIZER.matrix_learning_rate / (CHILD.hidden_size / 256)
    assert rates[False] == OPTIMIZER.learning_rate


def _trained_more(learner: Learner, step: int) -> None:
    train_on(learner, batch_of(learner.model, step), step)


def test_the_ends_of_the_ramp_are_exact() -> None:
    grown = grow(trained_state(PARENT), CHILD, ramp=4, seed=3)
    learner = Learner(grown, OPTIMIZER, torch.float64)
    start, end = learner.ramp(grown.step), learner.ramp(grown.step + 4)
    assert start.logit_multiplier == PARENT.logit_multiplier
    assert start.input_multiplier == PARENT.input_mult
    assert start.mup_ratio == PARENT.hidden_size / PARENT.mup_base_width
    assert end.logit_multiplier == CHILD.logit_multiplier
    assert end.input_multiplier == CHILD.input_mult
    assert end.width_fraction == 1.0
    assert learner.network.logit_multiplier.item() == PARENT.logit_multiplier


def test_multipliers_and_width_follow_the_ramp() -> None:
    # TELEFLM's rules by hand at r = 1/4: n = d + (D − d) r², k geometric, m = n / base.
    ramp = ramp_between(PARENT, CHILD, 0.25)
    n = 24 + 13 / 16
    assert ramp.effective_width == n
    assert ramp.mup_ratio == n / 256
    k = (0.7 * 256) ** 0.75 * (1.9 * 256) ** 0.25
    assert ramp.logit_multiplier == pytest.approx(k / n, rel=1e-14)
    assert ramp.input_multiplier == pytest.approx(1.3**0.75 * 0.8**0.25, rel=1e-14)


def test_every_new_entry_learns_within_the_first_steps_of_the_ramp() -> None:
    # Of each new pair of writer and reader at most one side may start shut: else both are dead.
    grown = grow(trained_state(PARENT), CHILD, ramp=8, seed=3)
    learner = _trained_through(grown, 4)
    first_moments = learner.tensors()[1]
    for name, moment in first_moments.items():
        new = on_any_line(new_lines(grown.lineage[-1:], name))
        if name == "model.embed_tokens.weight":
            seen = torch.cat([batch_of(CHILD, step)[:, :-1] for step in range(6, 9)]).unique()
            moment, new = moment[seen], new[seen]
        assert (moment[new] != 0).all(), name


def test_new_weights_have_an_ordinary_init_and_old_ones_stay() -> None:
    state = trained_state(PARENT)
    grown = grow(state, CHILD, ramp=8, seed=3)
    growth = GrowthMap("mask", PARENT, CHILD, grown.lineage[-1].layers)
    for name, weight in grown.weights.items():
        new = on_any_line(new_lines(grown.lineage[-1:], name))
        expected = initial_value(CHILD, name, seed=3).double()
        assert torch.equal(weight[new], expected[new]), name
        source = growth.parent_name(name)
        if source is not None:
            assert torch.equal(weight[~new], state.weights[source].flatten()), name
            assert torch.equal(grown.exp_avg_sq[name][~new], state.exp_avg_sq[source].flatten()), (
                name
            )
        assert not grown.exp_avg[name][new].any(), name


def test_heads_grow_within_their_groups() -> None:
    # 2 groups of 2 queries → 3 of 3: the old queries are the first two of the first two groups.
    old = GrowthMap("mask", PARENT, CHILD, (0, 1)).is_old(Axis.HEADS).view(3, 3, PARENT.head_dim)
    assert old[:, :, 0].tolist() == [[True, True, False], [True, True, False], [False] * 3]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hidden_size": 23}, "hidden_size would shrink from 24 to 23"),
        ({"intermediate_size": 39}, "intermediate_size would shrink"),
        ({"num_hidden_layers": 1}, "num_hidden_layers would shrink"),
        ({"num_key_value_heads": 1}, "num_key_value_heads would shrink"),
        ({"num_key_value_heads": 4}, "queries_per_group would shrink"),
        ({"head_dim": 8}, "head_dim must stay 6"),
        ({"vocab_size": 54}, "vocab_size must stay 53"),
        ({"rope_theta": 5e5}, "rope_theta must stay"),
        ({"parametrization": "standard"}, "parametrization must stay mup .* has standard"),
        ({"rms_norm_eps": 1e-6}, "rms_norm_eps must stay"),
    ],
)
def test_what_masks_cannot_do_is_refused(change: dict[str, object], words: str) -> None:
    with pytest.raises(GrowthError, match=words):
        grow(trained_state(PARENT, 1), PARENT.model_copy(update=change), ramp=4)


def test_without_mup_no_width_is_in_the_ramp() -> None:
    standard = {"parametrization": "standard"}
    parent, child = PARENT.model_copy(update=standard), CHILD.model_copy(update=standard)
    ramp = ramp_between(parent, child, 0.5)
    assert ramp.effective_width == 24 + 13 / 4
    assert ramp.mup_ratio == 1.0
    assert ramp.logit_multiplier == pytest.approx((0.7 * 1.9) ** 0.5, rel=1e-14)
    assert ramp_between(parent, child, 0.0).logit_multiplier == 0.7
    # Rates on the ramp, and the folded model in its middle.
    learner = Learner(grow(trained_state(parent, 1), child, ramp=4, seed=3), OPTIMIZER)
    for step in (1, 2):
        _trained_more(learner, step)
        rates = {g["is_matrix_like"]: g["lr"] for g in learner.optimizer.param_groups}
        decays = {g["weight_decay"] for g in learner.optimizer.param_groups}
        assert rates == {True: OPTIMIZER.matrix_learning_rate, False: OPTIMIZER.learning_rate}
        assert decays == {OPTIMIZER.weight_decay}
    assert folded_model(child, ramp).logit_multiplier == ramp.logit_multiplier


def test_an_open_ramp_is_not_grown_again() -> None:
    grown = grow(trained_state(PARENT, 1), CHILD, ramp=4)
    with pytest.raises(GrowthError, match=r"open to 0\.00"):
        grow(grown, CHILD, ramp=4)
    done = replace(grown, step=grown.step + 4)
    assert len(grow(done, CHILD, ramp=4).lineage) == 3


def test_two_growths_in_a_row_are_exact() -> None:
    first = grow(trained_state(PARENT), CHILD, ramp=3, seed=3)
    learner = _trained_through(first, 5)
    weights, exp_avg, exp_avg_sq = learner.tensors()
    state = replace(
        first,
        weights=weights,
        exp_avg=exp_avg,
        exp_avg_sq=exp_avg_sq,
        adam_steps=first.adam_steps + 5,
        step=first.step + 5,
    )
    larger = CHILD.model_copy(update={"hidden_size": 50, "num_hidden_layers": 7})
    assert certify(state, grow(state, larger, ramp=5, seed=4), optimizer=OPTIMIZER).exact


def test_the_table_folds_every_width_axis_somewhere() -> None:
    # A new width axis, or a parameter that writes the stream, must not be forgotten.
    folded = {axis for parameter in PARAMETERS.values() for axis in parameter.folds}
    assert folded == {Axis.HIDDEN, Axis.HEADS, Axis.FFN}
    for pattern, parameter in PARAMETERS.items():
        writes_stream = Axis.HIDDEN in parameter.axes[:1] and not parameter.is_gain
        assert writes_stream == parameter.writes_branch, pattern


def test_certificates_default_to_the_runs_like_hyperparameters() -> None:
    state = trained_state(PARENT)
    grown = grow(state, CHILD, ramp=5, seed=1)
    fast = OptimizerConfig(learning_rate=1.0, matrix_learning_rate=1.0, clip=100.0)
    assert certify(state, grown, optimizer=fast).exact  # the rate is lowered


@given(parents_and_children(), st.integers(0, 3), st.data())
def test_a_part_grows_as_the_whole_does(
    shapes: tuple[ModelConfig, ModelConfig], seed: int, data: st.DataObject
) -> None:
    parent, child = shapes
    state = fresh_state(parent, seed)
    whole_state = grow(state, child, ramp=5, seed=seed + 1)
    regions = {
        name: tuple(_stretch(data, size) for size in parameter_of(name).shape(child))
        for name in data.draw(st.lists(st.sampled_from(list(parameter_names(child))), max_size=4))
    }
    part = grow_lazily(state.lazy(), Growth(child, ramp=5, seed=seed + 1)).in_memory(regions)
    assert part.lineage == whole_state.lineage and part.weights.keys() == regions.keys()
    for name, region in regions.items():
        assert torch.equal(part.weights[name], whole_state.weights[name][region])


def _stretch(data: st.DataObject, size: int) -> slice:
    start = data.draw(st.integers(0, size))
    return slice(start, data.draw(st.integers(start, size)))
