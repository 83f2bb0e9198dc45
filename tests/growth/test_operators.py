"""Every operator and every composition: what is promised exact is exact, what is not is not."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from teleflm.certificate.certify import certify
from teleflm.certificate.record import Certificate
from teleflm.config.growth import (
    DepthOperator,
    Symmetry,
    WidthConfig,
    WidthOperator,
    with_grown_eps,
)
from teleflm.config.model import ModelConfig
from teleflm.config.run import OptimizerConfig
from teleflm.errors import GrowthError
from teleflm.growth.grow import Growth, grow, grow_lazily
from teleflm.growth.operators import growth_map, keeps_trajectory, new_lines, on_any_line
from teleflm.growth.shares import share_out
from teleflm.growth.state import KINDS, TrainingState
from teleflm.model.axes import parameter_names, parameter_of
from teleflm.model.region import whole
from teleflm.training.learner import Learner
from tests.growing import CHILD, OPTIMIZER, PARENT, batch_of, growths, train_on, trained_state

OPERATORS: list[WidthOperator] = ["mask", "clone", "zero"]


def grown_by(state: TrainingState, growth: Growth) -> TrainingState:
    return grow_lazily(state.lazy(), growth).in_memory()


def single(state: TrainingState) -> TrainingState:
    """The state as a checkpoint of a run holds it, in float32."""
    return state.lazy().to(torch.float32).in_memory()


def assert_function_kept(certificate: Certificate) -> None:
    function = certificate.function
    assert function.max_relative_logit_error <= 1e-12
    assert function.float32_max_relative_logit_error <= max(1e-5, 10 * function.float32_rounding)


@settings(max_examples=60)
@given(growths(OPERATORS, ["mask", "zero", "copy"]), st.booleans())
def test_any_composition_keeps_what_it_promises(
    drawn: tuple[ModelConfig, Growth], stored: bool
) -> None:
    parent, growth = drawn
    state = trained_state(parent, seed=growth.seed)
    if stored:
        state = single(state)
    certificate = certify(state, grown_by(state, growth), optimizer=OPTIMIZER, seed=growth.seed)
    assert certificate.regrown
    if "copy" in certificate.operators:
        assert not certificate.promised_exact
        # A random layer may be next to nothing; on the shapes below it is not.
        return
    assert_function_kept(certificate)
    assert certificate.trajectory is not None
    assert certificate.trajectory.max_relative_loss_difference <= 1e-12
    assert certificate.exact and certificate.promised_exact


def times(count: int, **more: Any) -> ModelConfig:
    """PARENT with every width so many times as large."""
    wider = {
        "hidden_size": 24 * count,
        "intermediate_size": 40 * count,
        "num_attention_heads": 4 * count,
        "num_key_value_heads": 2 * count,
    }
    return PARENT.model_copy(update=wider | more)


@pytest.mark.parametrize("place", ["even", "stack", (1, 1, 0)])
def test_copies_of_layers_measure_as_what_they_are(place: Any) -> None:
    state = trained_state(PARENT)
    deeper = PARENT.model_copy(update={"num_hidden_layers": 5})
    certificate = certify(state, grow(state, deeper, depth="copy", place=place))
    assert certificate.function.max_relative_logit_error > 1e-3
    assert not certificate.exact and not certificate.promised_exact


def test_copied_layers_are_copies() -> None:
    state = trained_state(PARENT)
    deeper = PARENT.model_copy(update={"num_hidden_layers": 5})
    held = {"even": (0, 0, 1, 1, 1), "stack": (0, 1, 0, 1, 0)}
    name = "model.layers.{}.mlp.up_proj.weight"
    for place, layers in held.items():
        grown = grow(state, deeper, depth="copy", place=place)
        assert grown.lineage[-1].copies == layers, place
        for kind in KINDS:
            for new, old in enumerate(layers):
                tensors = grown.tensors(kind), state.tensors(kind)
                assert torch.equal(tensors[0][name.format(new)], tensors[1][name.format(old)])


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("symmetry", ["keep", "noise", "split"])
def test_clones_learn_as_their_parent_until_their_symmetry_is_broken(
    count: int, symmetry: Symmetry
) -> None:
    # With AdamW, decay and clipping at 3e-3, on the same random text.
    ratio = PARENT.hidden_size / PARENT.mup_base_width
    rates = OptimizerConfig(learning_rate=3e-3, matrix_learning_rate=3e-3 * ratio, weight_decay=0.1)
    state = trained_state(PARENT)
    clones = grow(state, times(count), width="clone", symmetry=symmetry)
    losses: dict[str, list[float]] = {}
    for name, each in (("parent", state), ("clones", clones)):
        learner = Learner(each, rates, torch.float64)
        clip = 0.5 * 1.0
        losses[name] = [
            train_on(learner, batch_of(PARENT, 99), state.step + step, clip) for step in range(30)
        ]
    gaps = [abs(a / b - 1) for a, b in zip(losses["clones"], losses["parent"], strict=True)]
    assert gaps[0] <= 1e-12
    assert (max(gaps) <= 1e-12) == (symmetry == "keep")


def test_clones_part_when_their_symmetry_is_broken() -> None:
    state = trained_state(PARENT)
    for symmetry, parted in (("noise", True), ("split", True), ("keep", False)):
        learner = Learner(
            grow(state, times(2), width="clone", symmetry=symmetry), OPTIMIZER, torch.float64
        )
        for step in range(state.step, state.step + 3):
            train_on(learner, batch_of(PARENT, step), step)
        for name, moment in learner.tensors()[1].items():
            if "embed" in name:
                moment = moment[batch_of(PARENT, state.step)[:, :-1].unique()]
            halves = moment.chunk(2, dim=-1)
            same = torch.allclose(halves[0], halves[1], rtol=1e-9, atol=0)
            assert same != parted, (symmetry, name)


def test_unequal_multiplicities_keep_the_function_and_promise_no_more() -> None:
    state = trained_state(PARENT)
    child = times(2, intermediate_size=160, num_key_value_heads=2)
    certificate = certify(state, grow(state, child, width="clone"))
    assert certificate.exact
    assert certificate.trajectory is not None and certificate.trajectory.steps == 0
    kept_groups = grow(state, times(2, num_key_value_heads=2), width="clone", symmetry="keep")
    assert keeps_trajectory(kept_groups.lineage[-1])
    assert certify(state, kept_groups).exact


@pytest.mark.parametrize("width", OPERATORS)
def test_growths_without_mup_are_certified(width: WidthOperator) -> None:
    standard = {"parametrization": "standard"}
    state = trained_state(PARENT.model_copy(update=standard))
    child = (times(2) if width == "clone" else CHILD).model_copy(update=standard)
    child = with_grown_eps(state.model, child, WidthConfig(hidden=width))
    certificate = certify(state, grow(state, child, width=width, depth="mask", ramp=9))
    assert certificate.exact
    assert certificate.trajectory is not None
    # Clones would have to learn at half the rate, and no rate follows the width here.
    assert certificate.trajectory.steps == (30 if width == "mask" else 0)


@pytest.mark.parametrize(
    ("width", "depth"),
    [("mask", "mask"), ("zero", "zero"), ("mask", "zero"), ("zero", "mask"), ("mask", "copy")],
)
def test_every_new_entry_learns_within_the_first_steps(width: str, depth: DepthOperator) -> None:
    # Of each new pair of writer and reader at most one side may be zero: else both are dead.
    state = trained_state(PARENT)
    grown = grow(state, CHILD, width=width, depth=depth, ramp=8, seed=3)
    learner = Learner(grown, OPTIMIZER, torch.float64)
    for step in range(grown.step, grown.step + 4):
        train_on(learner, batch_of(grown.model, step), step)
    events = grown.lineage[len(state.lineage) :]
    seen = torch.cat([batch_of(CHILD, step)[:, :-1] for step in range(6, 9)]).unique()
    for name, moment in learner.tensors()[1].items():
        new = on_any_line(new_lines(events, name))
        if name == "model.embed_tokens.weight":
            moment, new = moment[seen], new[seen]
        assert (moment[new] != 0).all(), name


@settings(max_examples=60)
@given(growths(OPERATORS, ["mask", "zero", "copy"]), st.booleans())
def test_what_is_new_follows_the_entries(drawn: tuple[ModelConfig, Growth], again: bool) -> None:
    parent, growth = drawn
    grown = grown_by(trained_state(parent), growth)
    if again:
        wider = grown.model.model_copy(
            update={"intermediate_size": grown.model.intermediate_size + 2}
        )
        grown = grow(replace(grown, step=grown.step + growth.ramp), wider)
    events = [event for event in grown.lineage if event.is_growth]
    # Each entry's own history, by the maps that place weights.
    history = {
        name: torch.zeros(parameter_of(name).shape(parent)) for name in parameter_names(parent)
    }
    for event in events:
        steps, before = growth_map(event), history
        history = {}
        for name in parameter_names(event.to):
            history[name] = torch.ones(parameter_of(name).shape(event.to))
            region = whole(history[name].shape)
            source = steps.parent_region(name, region)
            if source is not None:
                steps.place(history[name], name, region, before[source[0]][source[1]])
    for name, is_new in history.items():
        assert torch.equal(on_any_line(new_lines(events, name)), is_new.bool()), name


@pytest.mark.parametrize("width", ["zero", "clone"])
def test_no_first_update_is_oversized(width: str) -> None:
    # A late Adam count over zero moments would make it 3.2 times the rate at these betas.
    config = OptimizerConfig(
        learning_rate=1e-3, matrix_learning_rate=1e-3, betas=(0.9, 0.999), weight_decay=0.0
    )
    state = replace(trained_state(PARENT, steps=20), adam_steps=2000)
    child = times(2, num_hidden_layers=4)
    learner = Learner(grow(state, child, width=width, depth="zero"), config, torch.float64)
    for step in range(state.step, state.step + 3):
        before = {name: weight.clone() for name, weight in learner.tensors()[0].items()}
        fresh = {name: moment == 0 for name, moment in learner.tensors()[2].items()}
        train_on(learner, batch_of(PARENT, step), step)
        events = [event for event in learner.lineage if event.is_growth]
        rates = {group["is_matrix_like"]: group["lr"] for group in learner.optimizer.param_groups}
        for name, weight in learner.tensors()[0].items():
            new = on_any_line(new_lines(events, name)) & fresh[name]
            moved = (weight - before[name])[new].abs()
            rate = rates[parameter_of(name).is_matrix_like]
            assert not len(moved) or moved.max() <= rate * 1.0001, name


def test_the_published_steps_are_reached() -> None:
    # 52B → 102B → 1T at an eighth-and-less: widths 5/4 and 2, FFN × 3.6, layers 64:80:140.
    small = ModelConfig(
        vocab_size=31,
        hidden_size=16,
        intermediate_size=44,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=4,
        max_position_embeddings=33,
        vector_init_std=0.05,
        mup_base_width=4,
    )
    middle = small.model_copy(
        update={"hidden_size": 20, "intermediate_size": 55, "num_hidden_layers": 5}
        | {"num_attention_heads": 5, "num_key_value_heads": 5}
    )
    big = middle.model_copy(
        update={"hidden_size": 40, "intermediate_size": 198, "num_hidden_layers": 9}
        | {"num_attention_heads": 10, "num_key_value_heads": 10, "output_mult": 2.0}
    )
    state = trained_state(small)
    for width, depth in (("mask", "mask"), ("zero", "zero"), ("zero", "mask")):
        first = grow(state, middle, width=width, depth=depth, ramp=1)
        first = replace(first, step=first.step + 1)
        assert first.model == with_grown_eps(small, middle, WidthConfig.model_validate(width))
        eps = {"rms_norm_eps": first.model.rms_norm_eps}
        for second in ("mask", "zero", "hidden=clone,heads=clone,ffn=mask"):
            target = big.model_copy(update=eps)
            grown = grow(first, target, width=second, depth=depth)
            certificate = certify(first, grown, steps=3)
            assert certificate.exact, (width, depth, second, certificate)


def test_a_changed_logit_multiplier_is_folded() -> None:
    state = trained_state(PARENT.model_copy(update={"output_mult": 24 / 256 / 32}))
    for width in ("zero", "hidden=clone,heads=mask,ffn=zero"):
        to = state.model.model_copy(update={"hidden_size": 48, "output_mult": 48 / 256 / 40})
        grown = grow(state, to, width=width)
        found = (state.model.logit_multiplier, grown.model.logit_multiplier)
        assert found == pytest.approx((1 / 32, 1 / 40), rel=1e-14)
        certificate = certify(single(state), grow(single(state), to, width=width))
        assert certificate.exact, certificate


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("clones", [2, 3, 4, 7])
@pytest.mark.parametrize("unequal", [False, True])
def test_shares_sum_to_the_last_bit(dtype: torch.dtype, clones: int, unequal: bool) -> None:
    generator = torch.Generator().manual_seed(clones)
    weight = torch.randn(50, 6, generator=generator, dtype=dtype) * 10.0 ** torch.arange(-3, 3)
    weight[:, 0] = 0.0
    weight[::2, 1] = 2.0**-3
    factors = None
    if unequal:
        drawn = torch.rand(50, clones, 6, generator=generator, dtype=torch.float64)
        factors = 0.55 + 0.9 * drawn
    shares = share_out(weight, clones, factors)
    assert shares.dtype == dtype
    assert torch.equal(shares.double().sum(1), weight.double())
    equal = torch.allclose(shares, (weight / clones)[:, None], rtol=1e-5, atol=0)
    assert equal != unequal


@pytest.mark.parametrize(
    ("change", "width", "words"),
    [
        ({"hidden_size": 60}, "clone", r"hidden_size 60 is no multiple of 24.*take 48 or 72"),
        ({"intermediate_size": 41}, "ffn=clone", r"intermediate_size 41 is no multiple of 40"),
        ({"num_key_value_heads": 3, "num_attention_heads": 6}, "clone", r"num_key_value_heads 3"),
        ({"num_attention_heads": 6}, "clone", r"queries_per_group 3 is no multiple of 2"),
        ({"hidden_size": 48, "rms_norm_eps": 1e-3}, "zero", r"rms_norm_eps must stay.*or become"),
        ({"hidden_size": 12}, "zero", r"hidden_size would shrink from 24 to 12"),
    ],
)
def test_what_the_operators_cannot_do_is_refused(
    change: dict[str, Any], width: str, words: str
) -> None:
    with pytest.raises(GrowthError, match=words):
        grow(trained_state(PARENT, 1), PARENT.model_copy(update=change), width=width)


def test_any_piece_of_a_grown_state_is_made_by_itself() -> None:
    state = trained_state(PARENT)
    for width in ("mask", "clone", "zero", "hidden=clone,heads=zero,ffn=mask"):
        lazy = grow_lazily(
            state.lazy(),
            Growth(times(2, num_hidden_layers=3), WidthConfig.model_validate(width), ramp=4),
        )
        everything = lazy.in_memory()
        for name in parameter_names(lazy.model):
            shape = parameter_of(name).shape(lazy.model)
            region = tuple(slice(size // 3, size - size // 4) for size in shape)
            for kind in KINDS:
                piece = lazy.read(kind, name, region)
                assert torch.equal(piece, everything.tensors(kind)[name][region]), (kind, name)
