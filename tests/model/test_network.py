"""The network against formulas written out."""

import pytest
import torch
from torch import Tensor

from teleflm.config.model import ModelConfig
from teleflm.model.attention import causal_attention
from teleflm.model.init import build_model, initial_state
from teleflm.model.network import TeleFLM
from teleflm.model.rope import Rope, apply_rope
from tests.tiny import MODEL

WIDE = MODEL.model_copy(update={"matrix_init_std": 0.3, "input_mult": 1.3})


def network_of(model: ModelConfig = WIDE, dtype: torch.dtype = torch.float64) -> TeleFLM:
    state = initial_state(model, seed=1)
    generator = torch.Generator().manual_seed(7)
    for name, weight in state.items():
        if "norm" in name:  # gains of one would hide a gain that is left out
            weight += 0.3 * torch.randn(weight.shape, generator=generator)
    return build_model(model, state, dtype)


def tokens(rows: int = 2, length: int = 13) -> Tensor:
    return torch.randint(40, (rows, length), generator=torch.Generator().manual_seed(0))


def by_hand(model: ModelConfig, w: dict[str, Tensor], ids: Tensor) -> Tensor:
    """Logits (S, V) of one sequence, position by position and head by head."""
    d, eps = model.head_dim, model.rms_norm_eps

    def norm(x: Tensor, gain: Tensor) -> Tensor:
        return x / ((x * x).mean(-1, keepdim=True) + eps).sqrt() * gain

    def rotate(x: Tensor, position: int) -> Tensor:
        out = x.clone()
        for i in range(d // 2):
            angle = torch.tensor(position / model.rope_theta ** (2 * i / d))
            a, b = x[i], x[i + d // 2]
            out[i] = a * angle.cos() - b * angle.sin()
            out[i + d // 2] = b * angle.cos() + a * angle.sin()
        return out

    x = w["model.embed_tokens.weight"][ids] * model.input_mult
    for layer in range(model.num_hidden_layers):
        p = f"model.layers.{layer}."
        y = norm(x, w[p + "input_layernorm.weight"])
        q, k, v = (y @ w[f"{p}self_attn.{c}_proj.weight"].T for c in "qkv")
        heads = []
        for head in range(model.num_attention_heads):
            group = head // model.queries_per_group
            mine, theirs = slice(head * d, (head + 1) * d), slice(group * d, (group + 1) * d)
            qs = torch.stack([rotate(q[t, mine], t) for t in range(len(ids))])
            ks = torch.stack([rotate(k[t, theirs], t) for t in range(len(ids))])
            scores = (qs @ ks.T) * d**-0.5
            hidden = torch.ones_like(scores, dtype=torch.bool).triu(1)
            heads.append(scores.masked_fill(hidden, -torch.inf).softmax(-1) @ v[:, theirs])
        x = x + torch.cat(heads, -1) @ w[p + "self_attn.o_proj.weight"].T
        y = norm(x, w[p + "post_attention_layernorm.weight"])
        gate, up = y @ w[p + "mlp.gate_proj.weight"].T, y @ w[p + "mlp.up_proj.weight"].T
        x = x + (gate * gate.sigmoid() * up) @ w[p + "mlp.down_proj.weight"].T
    scale = model.output_mult * 256 / model.hidden_size
    return norm(x, w["model.norm.weight"]) @ w["lm_head.weight"].T * scale


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_the_forward_pass_by_hand(groups: int) -> None:
    model = WIDE.model_copy(update={"num_key_value_heads": groups})
    network = network_of(model)
    with torch.no_grad():
        ours = network(tokens())
        theirs = torch.stack([by_hand(model, network.state_dict(), row) for row in tokens()])
    # RoPE's tables are formed in float32 on purpose, which is what is seen here.
    torch.testing.assert_close(ours, theirs, rtol=2e-6, atol=2e-6 * theirs.abs().max().item())


def test_the_future_is_not_seen() -> None:
    network, ids = network_of(), tokens()
    changed = ids.clone()
    changed[:, 9] = (changed[:, 9] + 1) % 40
    before, after = network(ids), network(changed)
    assert torch.equal(before[:, :9], after[:, :9])
    assert not torch.allclose(before[:, 9:], after[:, 9:])


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_attention_is_softmax_of_products(groups: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(groups)
    q = torch.randn(2, 4, 9, 8, generator=generator, dtype=dtype, requires_grad=True)
    k, v = (
        torch.randn(2, groups, 9, 8, generator=generator, dtype=dtype, requires_grad=True)
        for _ in range(2)
    )
    keys, values = (x.repeat_interleave(4 // groups, dim=1) for x in (k, v))
    scores = q @ keys.transpose(-1, -2) / 8**0.5
    future = torch.ones(9, 9, dtype=torch.bool).triu(1)
    expected = scores.masked_fill(future, -torch.inf).softmax(-1) @ values
    ours = causal_attention(q, k, v)
    torch.testing.assert_close(ours, expected)
    ours_grad = torch.autograd.grad(ours.square().sum(), (q, k, v))
    for one, other in zip(
        ours_grad, torch.autograd.grad(expected.square().sum(), (q, k, v)), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_bf16_attention_on_a_cpu_is_computed_in_fp32() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 2, 6, 8, generator=generator).bfloat16() for _ in range(3))
    with torch.autocast("cpu", torch.bfloat16):
        ours = causal_attention(q, k, v)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, causal_attention(q.float(), k.float(), v.float()))


def test_autocast_keeps_stream_and_gradients_in_fp32() -> None:
    network = network_of(MODEL, torch.float32)
    streams: list[Tensor] = []
    for block in network.model.layers:
        block.register_forward_hook(lambda _m, _i, out: streams.append(out))
    with torch.autocast("cpu", torch.bfloat16):
        hidden = network.hidden(tokens())
    assert {s.dtype for s in streams} == {torch.float32}
    assert hidden.dtype == torch.bfloat16
    exact = network.hidden(tokens())
    assert ((hidden - exact).norm() / exact.norm()).item() < 2e-2
    hidden.float().sum().backward()
    assert {p.grad.dtype for p in network.parameters() if p.grad is not None} == {torch.float32}


def test_rope_turns_by_the_distance_alone() -> None:
    cos, sin = Rope(MODEL).tables(slice(0, 64), torch.device("cpu"))
    assert cos.shape == sin.shape == (64, 8)
    assert cos.dtype == torch.float32
    q, k = torch.randn(2, 1, 1, 1, 8, generator=torch.Generator().manual_seed(0)).double()

    def product(i: int, j: int) -> float:
        at_i, at_j = slice(i, i + 1), slice(j, j + 1)
        one, other = apply_rope(q, cos[at_i], sin[at_i]), apply_rope(k, cos[at_j], sin[at_j])
        return (one * other).sum().item()

    assert product(0, 0) == pytest.approx((q * k).sum().item())
    assert product(20, 13) == pytest.approx(product(7, 0), rel=1e-5)
    assert product(20, 13) != pytest.approx(product(13, 20), rel=1e-2)


def test_multipliers_are_not_rounded_by_a_cast() -> None:
    network = network_of(MODEL.model_copy(update={"output_mult": 0.1})).bfloat16()
    assert network.logit_multiplier.item() == 0.1 * 256 / 32
    assert network.logit_multiplier.dtype == torch.float64


def test_only_parameters_are_saved() -> None:
    network = network_of()
    assert set(network.state_dict()) == {name for name, _ in network.named_parameters()}
