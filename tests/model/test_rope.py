"""The rotation's gradient and what it keeps; its tables against transformers' own."""

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from teleflm.config.huggingface import from_huggingface
from teleflm.config.resolve import resolve_model
from teleflm.model.init import build_model, initial_state
from teleflm.model.rope import Rope, apply_rope
from tests.tiny import MODEL

CPU = torch.device("cpu")


def data() -> tuple[Tensor, Tensor, Tensor]:
    cos, sin = (table.double() for table in Rope(MODEL).tables(slice(0, 5), CPU))
    x = torch.randn(2, 5, 3, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return x.transpose(1, 2).requires_grad_(), cos, sin


def test_its_gradient() -> None:
    x, cos, sin = data()
    assert torch.autograd.gradcheck(lambda x: apply_rope(x, cos, sin), (x,))


def test_it_is_the_rotate_half_form_in_any_precision() -> None:
    x, cos, sin = data()
    first, second = x.chunk(2, dim=-1)
    expected = x * cos + torch.cat((-second, first), dim=-1) * sin
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        found = apply_rope(x.to(dtype), cos, sin)
        assert found.dtype is dtype
        # Of the larger of the two that are added, which may cancel.
        rounding = 2 * torch.finfo(dtype).eps * x.abs().max().item()
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=rounding)


def test_it_keeps_the_tables_alone() -> None:
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    x, cos, sin = data()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        apply_rope(x, cos, sin)
    assert [tensor.data_ptr() for tensor in kept] == [cos.data_ptr(), sin.data_ptr()]


def test_what_is_turned_lies_in_memory_as_before() -> None:
    # Attention's result lies as its queries do. If it did not lie by position, the next product
    # would have to copy it, and keep the copy.
    x = torch.randn(2, 5, 3, 8).transpose(1, 2).requires_grad_()
    turned = apply_rope(x, torch.randn(5, 8), torch.randn(5, 8))
    assert turned.stride() == x.stride()
    (gradient,) = torch.autograd.grad(turned, x, torch.ones_like(x))
    assert gradient.stride() == x.stride()


LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
YARN = {"rope_type": "yarn", "factor": 4.0}
DEFAULT = {"rope_type": "default", "rope_theta": 5000.0}
LINEAR = {"type": "linear", "factor": 4.0}
SHORT = {"original_max_position_embeddings": 256}


@pytest.mark.parametrize(
    "rope",
    [
        {},
        {"rope_theta": 777.0},
        {"rope_parameters": DEFAULT},
        {"rope_parameters": DEFAULT, "rope_theta": 777.0},
        {"rope_scaling": DEFAULT, "rope_theta": 777.0},
        {"rope_parameters": {"rope_type": "default"}, "rope_theta": 777.0},
        {"rope_scaling": LINEAR, "rope_theta": 777.0},
        {"rope_parameters": {**LINEAR, "rope_theta": 5000.0}},
        # Said twice: the older field counts, and the newer one's theta does not.
        {"rope_parameters": DEFAULT, "rope_scaling": LINEAR},
        {"rope_scaling": {**LLAMA3, **SHORT}, "rope_theta": 5e5},
        {"rope_scaling": LLAMA3, "rope_theta": 5e5, **SHORT},
        {"rope_scaling": YARN},
        {"rope_scaling": {**YARN, **SHORT}, "rope_theta": 1e6},
        {"rope_scaling": {**YARN, **SHORT, "factor": None}},
        {"rope_scaling": {**YARN, **SHORT, "attention_factor": 0.9}},
        {"rope_scaling": {**YARN, **SHORT, "beta_fast": 20, "beta_slow": 2, "truncate": False}},
        {"rope_scaling": {**YARN, **SHORT, "mscale": 0.7, "mscale_all_dim": 0.4}},
    ],
)
def test_its_tables_are_those_of_transformers(rope: dict[str, Any]) -> None:
    data = {
        "vocab_size": 7,
        "hidden_size": 128,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "head_dim": 64,
        "max_position_embeddings": 1024,
        **rope,
    }
    positions = slice(3, 1024)
    theirs = LlamaRotaryEmbedding(LlamaConfig.from_dict(data))(
        torch.zeros(1), torch.arange(positions.start, positions.stop)[None]
    )
    model = resolve_model(from_huggingface({**data, "model_type": "llama"}, "config.json"))
    for mine, (expected,) in zip(Rope(model).tables(positions, CPU), theirs, strict=True):
        assert torch.equal(mine, expected)


def test_tables_of_a_sample_serve_in_training() -> None:
    network = build_model(MODEL, initial_state(MODEL, 0), torch.float32)
    tokens = torch.arange(8)[None]
    with torch.inference_mode():
        network(tokens)
    network(tokens).sum().backward()


def test_a_long_context_costs_no_memory() -> None:
    model = MODEL.model_copy(update={"max_position_embeddings": 10**12})
    cos, _ = Rope(model).tables(slice(10, 12), CPU)
    assert cos.shape == (2, 8)


def test_the_tables_are_made_where_they_are_asked_for() -> None:
    # A network that went to a GPU asks for them there; here any other device stands for it.
    rope = Rope(MODEL)
    for device in (CPU, torch.device("meta")):
        assert {table.device for table in rope.tables(slice(0, 5), device)} == {device}
