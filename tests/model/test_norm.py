"""The norm in few passes against the formula, and what it keeps."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from teleflm.model.norm import masked_rms_norm, rms_norm


def data(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 10, generator=generator, dtype=torch.float64).to(dtype)
    weight = torch.randn(10, generator=generator, dtype=torch.float64).to(dtype)
    return x.requires_grad_(), weight.requires_grad_()


def test_its_gradients() -> None:
    # A large eps, or nobody would see a gradient that forgets it.
    assert torch.autograd.gradcheck(lambda x, w: rms_norm(x, w, 0.3), data())
    x, w = data()
    one_row = x[0, 0].detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda x, w: rms_norm(x, w, 0.3), (one_row, w))
    fraction = torch.tensor(0.6, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x, w: masked_rms_norm(x, w, 0.3, fraction), data())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_it_is_pytorchs(dtype: torch.dtype) -> None:
    x, weight = data(dtype)
    ours, theirs = rms_norm(x, weight, 1e-2), F.rms_norm(x, weight.shape, weight, 1e-2)
    torch.testing.assert_close(ours, theirs)
    gradient = torch.ones_like(ours).cumsum(-1)
    for one, other in zip(
        torch.autograd.grad(ours, (x, weight), gradient),
        torch.autograd.grad(theirs, (x, weight), gradient),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_under_autocast_it_is_in_float32_backward_too(dtype: torch.dtype) -> None:
    x, weight = data(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        y = rms_norm(x, weight, 1e-2)
        assert y.dtype is torch.float32
        found = torch.autograd.grad(y.square().sum(), (x, weight))
    wide, gain = (tensor.detach().float().requires_grad_() for tensor in (x, weight))
    expected = torch.autograd.grad(rms_norm(wide, gain, 1e-2).square().sum(), (wide, gain))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other.to(one.dtype))


def test_it_keeps_its_input_and_a_number_a_row() -> None:
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    x, weight = data()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        rms_norm(x, weight, 1e-5)
    assert sorted(tensor.numel() for tensor in kept) == [6, 10, 60]
