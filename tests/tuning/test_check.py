"""The coordinate check passes what is right, and notices each exponent that is wrong."""

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError

import teleflm.growth.ramp as ramp_module
import teleflm.training.learner as learner_module
from teleflm.config.coordinates import CheckConfig
from teleflm.config.model import ModelConfig
from teleflm.config.run import OptimizerConfig
from teleflm.growth.ramp import Ramp, ramp_at
from teleflm.model.axes import Parameter
from teleflm.tuning.check import CheckResult, check, models
from teleflm.tuning.proxies import half_open, proxy, untrained

# Grouped queries: two of them to a group.
MODEL = ModelConfig(
    vocab_size=4096,
    hidden_size=128,
    intermediate_size=352,
    num_hidden_layers=16,
    num_attention_heads=8,
    num_key_value_heads=4,
    head_dim=16,
)
SMALL = CheckConfig(widths=(32, 64, 128, 256), depths=(), layers=2, steps=2, seeds=1)


def checked(model: ModelConfig = MODEL, config: CheckConfig = SMALL) -> CheckResult:
    return check(model, OptimizerConfig(), config)


def wrong(result: CheckResult) -> set[str]:
    return {slope.name for slope in result.wrong}


def test_what_is_right_passes() -> None:
    # AdamW on grouped queries, and in the middle of a ramp.
    config = CheckConfig(widths=(32, 64, 128, 256), depths=(1, 2), steps=3)
    told: list[int] = []
    result = check(MODEL, OptimizerConfig(), config, advance=told.append)
    assert result.passed, result.wrong
    assert sum(told) == models(config)
    slopes = {slope.name: slope for slope in result.slopes}
    assert slopes["width/init/logits"].theory == slopes["ramp/init/logits"].theory == -0.5
    assert slopes["width/init/logits"].value == pytest.approx(-0.5, abs=0.1)
    judged = {name.split("/")[0] for name, slope in slopes.items() if slope.theory is not None}
    assert judged == {"width", "ramp"}
    # Seven linears, embedding, stream and logits, twice; decay of both classes.
    assert len([name for name in slopes if name.startswith("width/")]) == 2 * 10 + 2
    families = {family.name: family for family in result.families}
    # d + (D − d) r² at r = 1/2, with d = D / 2.
    assert families["ramp"].sizes == [0.625 * width for width in config.widths]
    record = result.to_json()
    assert record["passed"] is True and record["slopes"].keys() == slopes.keys()


def powers_of_m(monkeypatch: pytest.MonkeyPatch, rate: float, decay: float) -> None:
    """Have matrix-like groups set by these powers of m too much."""
    real = learner_module.set_rates

    def broken(
        optimizer: torch.optim.AdamW, config: OptimizerConfig, factor: float, mup_ratio: float
    ) -> None:
        real(optimizer, config, factor, mup_ratio)
        for group in optimizer.param_groups:
            if group["is_matrix_like"]:
                group["lr"] *= mup_ratio**rate
                group["weight_decay"] *= mup_ratio**decay

    monkeypatch.setattr(learner_module, "set_rates", broken)


def rate_without_width(monkeypatch: pytest.MonkeyPatch) -> None:
    powers_of_m(monkeypatch, rate=1, decay=-1)


def std_without_width(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Parameter.init_std

    def broken(parameter: Parameter, model: ModelConfig) -> float:
        width, base = model.mup_widths()
        factor = (width / base) ** 0.25 if parameter.is_matrix_like else 1.0
        return real(parameter, model) * factor

    monkeypatch.setattr(Parameter, "init_std", broken)


def multiplier_without_width(monkeypatch: pytest.MonkeyPatch) -> None:
    real = ramp_module.ramp_between

    def broken(parent: ModelConfig, child: ModelConfig, progress: float) -> Ramp:
        ramp = real(parent, child, progress)
        return replace(ramp, logit_multiplier=ramp.logit_multiplier * ramp.mup_ratio**0.5)

    monkeypatch.setattr(ramp_module, "ramp_between", broken)


def decay_without_width(monkeypatch: pytest.MonkeyPatch) -> None:
    powers_of_m(monkeypatch, rate=0, decay=-0.5)


@pytest.mark.parametrize(
    ("break_rule", "noticed"),
    [
        (rate_without_width, {"update/down_proj", "update/stream"}),
        (std_without_width, {"init/q_proj", "init/down_proj"}),
        (multiplier_without_width, {"init/logits"}),
        (decay_without_width, {"decay/matrix"}),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_wrong_exponent_fails(
    monkeypatch: pytest.MonkeyPatch,
    break_rule: Callable[[pytest.MonkeyPatch], None],
    noticed: set[str],
) -> None:
    break_rule(monkeypatch)
    result = checked()
    assert not result.passed
    expected = {f"{family}/{name}" for family in ("width", "ramp") for name in noticed}
    assert expected <= wrong(result), [(s.name, s.value) for s in result.slopes]
    if break_rule is decay_without_width:
        # A few steps' coordinates would not have told it.
        assert not any(name.startswith("update/") for name in wrong(result) - expected)


def test_what_is_no_mup_fails() -> None:
    result = checked(MODEL.model_copy(update={"parametrization": "standard"}))
    assert {"width/init/q_proj", "width/update/logits"} <= wrong(result)
    slopes = {slope.name: slope.value for slope in result.slopes}
    assert slopes["width/init/q_proj"] == pytest.approx(0.5, abs=0.1)
    # Its decay does not depend on the width either.
    assert slopes["width/decay/matrix"] == pytest.approx(0.0, abs=0.01)


def test_a_model_that_is_thrown_away_fails_and_is_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Parameter, "init_std", lambda *_: 0.0)
    result = checked(config=SMALL.model_copy(update={"widths": (16, 24, 32)}))
    assert not result.passed
    record = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert record["slopes"]["width/init/logits"] is None
    assert record["families"][0]["shrinkage"]["matrix"] == [None] * 3


def test_proxies_differ_in_their_width_alone() -> None:
    sliding = MODEL.model_copy(update={"sliding_layers": (1, 9), "sliding_window": 8})
    small, large = (proxy(sliding, width, 4, 64) for width in (64, 1024))
    assert (small.head_dim, small.num_attention_heads, small.num_key_value_heads) == (16, 4, 2)
    assert (large.num_attention_heads, large.num_key_value_heads) == (64, 32)
    assert (small.intermediate_size, large.intermediate_size) == (176, 2816)
    assert small.vocab_size == large.vocab_size == 256
    assert (small.sliding_layers, small.sliding_window) == ((1,), 8)
    assert proxy(sliding, 64, 1, 64).sliding_window is None
    assert ModelConfig.model_validate(large.model_dump()) == large
    # One head in a group stays one.
    plain = MODEL.model_copy(update={"num_key_value_heads": 8})
    assert proxy(plain, 64, 4, 64).queries_per_group == 1


def test_masks_stand_half_open() -> None:
    parent, child = (proxy(MODEL, width, 2, 64) for width in (32, 64))
    state = half_open(parent, child, 0)
    assert ramp_at(state.model, state.lineage, state.step).progress == 0.5
    assert untrained(child, 0).step == 0


@pytest.mark.parametrize(
    "fields", [{"widths": [64, 128]}, {"widths": [64, 256, 128]}, {"depths": [4, 4]}]
)
def test_sizes_that_give_no_slope_are_refused(fields: dict[str, list[int]]) -> None:
    with pytest.raises(ValidationError, match=r"widths|depths"):
        CheckConfig.model_validate(fields)
