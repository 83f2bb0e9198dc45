"""The chunked cross-entropy is PyTorch's, without the memory."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

import teleflm.model.loss as module
from teleflm.config.run import Precision
from teleflm.model.batch import IGNORED, Batch
from teleflm.model.init import build_model, initial_state
from teleflm.model.loss import (
    chunk_rows,
    cross_entropy_sum,
    loss_sum,
    network_scores,
    token_scores,
)
from teleflm.model.precision import autocast
from tests.tiny import MODEL


def data(
    rows: int, vocabulary: int = 37, width: int = 9, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rows)
    hidden = torch.randn(rows, width, generator=generator, dtype=torch.float64).to(dtype)
    weight = torch.randn(vocabulary, width, generator=generator, dtype=torch.float64).to(dtype)
    targets = torch.randint(vocabulary, (rows,), generator=generator)
    targets[::5] = IGNORED
    return hidden.requires_grad_(), weight.requires_grad_(), targets


def reference(hidden: Tensor, weight: Tensor, multiplier: float, targets: Tensor) -> Tensor:
    logits = hidden @ weight.T * multiplier
    return F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum")


@pytest.mark.parametrize("rows", [1, 6, 7, 8, 14, 30])
def test_value_and_gradients_across_chunks(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "chunk_rows", lambda *_: 7)
    hidden, weight, targets = data(rows)
    multiplier = torch.tensor(0.3, dtype=torch.float64)
    loss = cross_entropy_sum(hidden, weight, multiplier, targets)
    expected = reference(hidden, weight, 0.3, targets)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    # A factor behind the loss, as the mean over a batch is.
    ours = torch.autograd.grad(loss / 13, (hidden, weight))
    theirs = torch.autograd.grad(expected / 13, (hidden, weight))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-13)


def test_the_gradient_itself() -> None:
    hidden, weight, targets = data(6, vocabulary=5, width=3)
    multiplier = torch.tensor(1.7, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda h, w: cross_entropy_sum(h, w, multiplier, targets), (hidden, weight)
    )


def test_large_logits_do_not_overflow() -> None:
    hidden, weight, targets = data(8, dtype=torch.float32)
    multiplier = torch.tensor(1e4, dtype=torch.float64)
    loss = cross_entropy_sum(hidden, weight, multiplier, targets)
    torch.testing.assert_close(loss.float(), reference(hidden, weight, 1e4, targets))
    loss.backward()
    assert hidden.grad is not None
    assert hidden.grad.isfinite().all()


def test_nothing_counted_is_nothing() -> None:
    hidden, weight, targets = data(8)
    loss = cross_entropy_sum(hidden, weight, torch.tensor(1.0), torch.full_like(targets, IGNORED))
    loss.backward()
    assert loss.item() == 0
    assert hidden.grad is not None and weight.grad is not None
    assert not hidden.grad.any() and not weight.grad.any()


def test_bf16_products_with_fp32_sums() -> None:
    hidden, weight, targets = data(64, vocabulary=200, width=64, dtype=torch.float32)
    narrow = hidden.detach().bfloat16().requires_grad_()
    loss = cross_entropy_sum(narrow, weight, torch.tensor(0.1), targets)
    loss.backward()
    expected = reference(narrow.detach().float(), weight, 0.1, targets)
    (gradient,) = torch.autograd.grad(expected, weight)
    assert weight.grad is not None and narrow.grad is not None
    assert weight.grad.dtype == torch.float32 and narrow.grad.dtype == torch.bfloat16
    assert loss.item() == pytest.approx(expected.item(), rel=3e-3)
    error = (weight.grad - gradient).norm() / gradient.norm()
    assert error < 2e-2


class Largest(TorchDispatchMode):
    """The most entries that a result of any operation has."""

    entries = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor):
                self.entries = max(self.entries, tensor.numel())
        return result


@pytest.mark.parametrize("wants_gradient", [True, False])
def test_the_full_logits_never_exist(wants_gradient: bool) -> None:
    rows, vocabulary, width = 2048, 16_384, 8
    hidden, weight, targets = data(rows, vocabulary, width, torch.float32)
    with torch.set_grad_enabled(wants_gradient), Largest() as largest:
        loss = cross_entropy_sum(hidden, weight, torch.tensor(1.0), targets)
        if wants_gradient:
            loss.backward()
    assert chunk_rows(vocabulary, "cpu") == 128
    assert largest.entries == 128 * vocabulary
    assert largest.entries * 10 < rows * vocabulary


def test_without_gradients_there_is_a_third_of_the_products() -> None:
    hidden, weight, targets = data(24)
    flops = []
    for wants_gradient in (True, False):
        with torch.set_grad_enabled(wants_gradient), FlopCounterMode(display=False) as counted:
            cross_entropy_sum(hidden, weight, torch.tensor(1.0), targets)
        flops.append(counted.get_total_flops())
    assert flops[0] == 3 * flops[1] > 0


def test_no_second_derivative_is_better_than_a_wrong_one() -> None:
    hidden, weight, targets = data(24)
    loss = cross_entropy_sum(hidden, weight, torch.tensor(1.0), targets)
    (gradient,) = torch.autograd.grad(loss * hidden.sum(), hidden, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.square().sum().backward()


def test_a_published_vocabulary_s_chunks_are_bounded() -> None:
    assert chunk_rows(80_000, "cuda") * 80_000 * 4 < 300e6
    assert chunk_rows(80_000, "cpu") == 128


@pytest.mark.parametrize("dtype", ["fp64", "bf16"])
def test_the_loss_of_rows(dtype: Precision) -> None:
    network = build_model(MODEL, initial_state(MODEL, 0), torch.float64)
    if dtype == "bf16":
        network = network.float()
    rows = torch.randint(40, (3, 11), generator=torch.Generator().manual_seed(0))
    padded = rows.clone()
    padded[1, 6:] = -1
    with autocast(torch.device("cpu"), dtype):
        whole, part = (loss_sum(network, Batch.next_tokens(each)) for each in (rows, padded))
        logits = network(rows[:, :-1]).double()
    expected = F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten(), reduction="none")
    expected = expected.view(3, 10)
    tolerance = {"fp64": 1e-12, "bf16": 1e-3}[dtype]
    assert whole.item() == pytest.approx(expected.sum().item(), rel=tolerance)
    counted = expected.sum() - expected[1, 5:].sum()
    assert part.item() == pytest.approx(counted.item(), rel=tolerance)


@pytest.mark.parametrize("rows", [1, 7, 30])
def test_scores_are_the_loss_token_by_token(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "chunk_rows", lambda *_: 7)
    hidden, weight, targets = data(rows)
    logits = (hidden @ weight.T * 0.3).detach()
    best = logits.argmax(-1)
    targets[1::3] = best[1::3]
    scores = token_scores(hidden, weight, torch.tensor(0.3, dtype=torch.float64), targets)
    counted = targets != IGNORED
    expected = F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="none")
    torch.testing.assert_close(scores.nats, expected, rtol=1e-12, atol=1e-12)
    assert scores.is_greedy.tolist() == ((best == targets) & counted).tolist()
    assert not scores.nats.requires_grad


def test_of_two_tokens_as_likely_greedy_text_has_the_first() -> None:
    hidden, weight = torch.ones(2, 3), torch.ones(4, 3)
    scores = token_scores(hidden, weight, torch.tensor(1.0), torch.tensor([0, 1]))
    assert scores.is_greedy.tolist() == [True, False]


def test_the_scores_of_rows_do_not_depend_on_what_pads_them() -> None:
    network = build_model(MODEL, initial_state(MODEL, 0), torch.float64)
    rows = torch.randint(40, (3, 11), generator=torch.Generator().manual_seed(0))
    padded = torch.cat([rows, rows.new_full((3, 4), IGNORED)], dim=1)
    alone, wide = (network_scores(network, Batch.next_tokens(each)) for each in (rows, padded))
    torch.testing.assert_close(wide.nats[:, :10], alone.nats, rtol=1e-12, atol=1e-12)
    assert wide.nats[:, 10:].abs().max() == 0 and not wide.is_greedy[:, 10:].any()
