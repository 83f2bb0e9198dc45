"""The rotation's gradient, and what it keeps; its values are test_network's."""

import torch
from torch import Tensor

from teleflm.model.rope import apply_rope, rope_tables
from tests.tiny import MODEL


def data() -> tuple[Tensor, Tensor, Tensor]:
    cos, sin = (table[:5].double() for table in rope_tables(MODEL))
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
