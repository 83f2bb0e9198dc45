"""µP's groups and rates, as the optimizer uses them."""

import pytest
import torch

from teleflm.config.run import OptimizerConfig
from teleflm.growth.ramp import ramp_between
from teleflm.model.axes import parameter_of
from teleflm.model.init import build_model, initial_state
from teleflm.model.mup import build_optimizer, set_rates
from teleflm.model.network import TeleFLM
from tests.tiny import MODEL

CONFIG = OptimizerConfig(
    learning_rate=3e-3, matrix_learning_rate=5e-3, betas=(0.8, 0.9), eps=1e-6, weight_decay=0.2
)


@pytest.fixture
def network() -> TeleFLM:
    return build_model(MODEL, initial_state(MODEL, 0), torch.float64)


def optimizer_of(network: TeleFLM) -> torch.optim.AdamW:
    return build_optimizer([(n, p, 1.0) for n, p in network.named_parameters()], CONFIG)


def test_eps_has_a_factor_for_each_parameter(network: TeleFLM) -> None:
    head = "lm_head.weight"
    optimizer = build_optimizer(
        [(n, p, 0.5 if n == head else 1.0) for n, p in network.named_parameters()], CONFIG
    )
    eps = {id(p): group["eps"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in network.named_parameters():
        assert eps[id(parameter)] == CONFIG.eps * (0.5 if name == head else 1.0)


def test_every_parameter_is_in_the_group_of_its_class(network: TeleFLM) -> None:
    optimizer = optimizer_of(network)
    found = {id(p): g["is_matrix_like"] for g in optimizer.param_groups for p in g["params"]}
    expected = {id(p): parameter_of(n).is_matrix_like for n, p in network.named_parameters()}
    assert found == expected
    assert sum(len(g["params"]) for g in optimizer.param_groups) == len(expected), "none twice"
    for group in optimizer.param_groups:
        assert (group["betas"], group["eps"]) == ((0.8, 0.9), 1e-6)


def test_rates_and_decays(network: TeleFLM) -> None:
    optimizer = optimizer_of(network)
    set_rates(optimizer, CONFIG, factor=0.5, mup_ratio=4.0)
    rates = {g["is_matrix_like"]: (g["lr"], g["weight_decay"]) for g in optimizer.param_groups}
    assert rates == {True: (5e-3 * 0.5 / 4, 0.8), False: (1.5e-3, 0.2)}
    matrix_lr, matrix_decay = rates[True]
    # What decay takes off a weight does not depend on the width.
    assert matrix_lr * matrix_decay == pytest.approx(5e-3 * 0.5 * 0.2)


def test_what_follows_the_width_and_what_does_not() -> None:
    # At four times the base width: std / 2, logits / 4; at any width of its own without µP.
    wide = MODEL.model_copy(update={"hidden_size": 4 * MODEL.mup_base_width})
    standard = wide.model_copy(update={"parametrization": "standard"})
    matrix, embedding = "model.layers.0.mlp.up_proj.weight", "model.embed_tokens.weight"
    for model, m in ((wide, 4.0), (standard, 1.0)):
        assert model.logit_multiplier == 0.7 / m
        assert parameter_of(matrix).init_std(model) == 0.024 / m**0.5
        assert parameter_of(embedding).init_std(model) == 0.05
        ramp = ramp_between(model, model, 1.0)
        assert (ramp.mup_ratio, ramp.logit_multiplier) == (m, 0.7 / m)


def test_a_first_update_is_adam_s(network: TeleFLM) -> None:
    optimizer = optimizer_of(network)
    set_rates(optimizer, CONFIG, factor=1.0, mup_ratio=2.0)
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    for p in network.parameters():
        p.grad = torch.full_like(p, 0.3)
    optimizer.step()
    for name, p in network.named_parameters():
        rate = 2.5e-3 if parameter_of(name).is_matrix_like else 3e-3
        decay = 0.4 if parameter_of(name).is_matrix_like else 0.2
        expected = before[name] * (1 - rate * decay) - rate * 0.3 / (0.3 + 1e-6)
        torch.testing.assert_close(p.detach(), expected, rtol=1e-12, atol=1e-15)
