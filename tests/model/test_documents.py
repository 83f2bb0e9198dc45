"""Texts in one row do not see each other: each has what it would have alone."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import teleflm.model.documents as module
from teleflm.growth.grow import grow
from teleflm.growth.state import TrainingState
from teleflm.model.attention import causal_attention
from teleflm.model.batch import IGNORED, Batch
from teleflm.model.device import as_if_on
from teleflm.model.documents import text_bounds
from teleflm.model.loss import loss_sum
from teleflm.model.rope import Rope
from teleflm.training.learner import Learner
from tests.growing import CHILD, OPTIMIZER, PARENT, trained_state
from tests.model.test_attention import by_hand

SIZES = [[5, 1, 6], [12], [2, 10]]
STARTS = torch.tensor([[0] * 5 + [5] + [6] * 6, [0] * 12, [0] * 2 + [2] * 10])


def alone(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """Each text by itself."""
    rows = []
    for row, sizes in enumerate(SIZES):
        parts = [t[row : row + 1].split(sizes, dim=2) for t in (q, k, v)]
        texts = [by_hand(x, y, z, window) for x, y, z in zip(*parts, strict=True)]
        rows.append(torch.cat(texts, dim=2))
    return torch.cat(rows)


def heads(dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Queries of four heads, keys and values of two."""
    torch.manual_seed(0)
    return [torch.randn(3, n, 12, 8, dtype=dtype, requires_grad=True) for n in (4, 2, 2)]


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
@pytest.mark.parametrize("window", [None, 1, 3, 12])
def test_attention_is_that_of_each_text(window: int | None, kind: str) -> None:
    q, k, v = heads()
    bounds = text_bounds(STARTS)
    assert bounds.tolist() == [0, 5, 6, 12, 24, 26, 36]
    expected = alone(q, k, v, window or 99)
    with as_if_on(kind):
        # In fp64, which elsewhere than on a CPU goes by a mask.
        found = causal_attention(q, k, v, window, bounds=bounds)
    assert (found - expected).abs().max() < 1e-14
    weight = torch.randn_like(expected)
    gradients = (torch.autograd.grad((y * weight).sum(), (q, k, v)) for y in (found, expected))
    for ours, theirs in zip(*gradients, strict=True):
        assert (ours - theirs).abs().max() < 1e-13


@pytest.mark.parametrize("window", [None, 3])
def test_a_gpu_s_kernel_is_given_texts_end_to_end(
    window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def varlen(q: Tensor, k: Tensor, v: Tensor, *bounds: Any, window_size: Sequence[int]) -> Tensor:
        """What PyTorch's documentation says of its own."""
        of_q, of_k, longest_q, longest_k = bounds
        assert of_q.dtype is torch.int32 and torch.equal(of_q, of_k)
        assert q.shape == k.shape == v.shape and longest_q == longest_k == 12
        left, right = window_size
        assert right == 0
        outs = []
        for first, end in pairwise(of_q.tolist()):
            of_text = [t[None, first:end].float().transpose(1, 2) for t in (q, k, v)]
            seen = 99 if left < 0 else left + 1
            outs.append(by_hand(of_text[0], of_text[1], of_text[2], seen)[0].transpose(0, 1))
        return torch.cat(outs).bfloat16()

    monkeypatch.setattr(module, "varlen_attn", varlen)
    q, k, v = (t.detach() for t in heads(torch.bfloat16))
    with as_if_on("cuda"):
        found = causal_attention(q, k, v, window, bounds=text_bounds(STARTS))
    expected = alone(q.float(), k.float(), v.float(), window or 99)
    torch.testing.assert_close(found.float(), expected, rtol=1e-2, atol=1e-2)


@pytest.fixture(scope="module")
def state() -> TrainingState:
    """In the middle of a ramp: grouped queries, a window in one layer, no RoPE in another."""
    kinds = {"sliding_window": 4, "sliding_layers": (1,), "nope_layers": (1,)}
    parent, child = (model.model_copy(update=kinds) for model in (PARENT, CHILD))
    grown = grow(trained_state(parent, 2), child, ramp=8, seed=1)
    return replace(grown, step=grown.step + 3)


def texts() -> list[Tensor]:
    """Texts that together fill two rows of 24 tokens."""
    generator = torch.Generator().manual_seed(5)
    return [torch.randint(53, (size,), generator=generator) for size in (9, 2, 13, 1, 16, 7)]


def packed() -> Batch:
    """Those behind one another, each token but a text's last with the next one for a target."""
    targets = [F.pad(text[1:], (0, 1), value=IGNORED) for text in texts()]
    places = 0, 9, 11, 0, 1, 17
    starts = [torch.full_like(text, at) for text, at in zip(texts(), places, strict=True)]
    return Batch(*(torch.cat(each).view(2, 24) for each in (texts(), targets, starts)))


def found(state: TrainingState, batches: Sequence[Batch]) -> tuple[float, list[Tensor]]:
    """Σ loss of these batches, and its gradients."""
    learner = Learner(state, OPTIMIZER, torch.float64)
    total = sum(loss_sum(learner.network, batch) for batch in batches)
    assert isinstance(total, Tensor)
    total.backward()
    return total.item(), [shard.gradient for shard in learner.engine.shards]


def error(state: TrainingState, batch: Batch) -> float:
    """How far the packed texts are from each alone, in loss and gradients, relatively."""
    each = [Batch.next_tokens(text[None]) for text in texts() if len(text) > 1]
    (loss, gradients), (expected, right) = found(state, [batch]), found(state, each)
    errors = [(a - b).norm() / b.norm() for a, b in zip(gradients, right, strict=True)]
    return max(abs(loss / expected - 1), *(error.item() for error in errors))


def test_the_loss_of_packed_texts_is_the_sum_of_each_alone(state: TrainingState) -> None:
    assert error(state, packed()) <= 1e-12


@pytest.mark.parametrize("leak", ["mask", "one place", "positions"])
def test_a_leak_is_found(state: TrainingState, leak: str, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = packed()
    starts = batch.starts
    assert starts is not None
    if leak == "mask":
        batch = batch._replace(starts=torch.zeros_like(starts))
    elif leak == "one place":
        # The second text sees the first, and none of the others does.
        starts[0, 9:11] = 0
    else:

        def going_on(rope: Rope, starts: Tensor) -> tuple[Tensor, Tensor]:
            return rope.tables(slice(0, starts.shape[1]), starts.device)

        monkeypatch.setattr(Rope, "restarting", going_on)
    # RoPE is relative: of positions that go on it is but the rounding of angles that shows.
    assert error(state, batch) > (1e-10 if leak == "positions" else 1e-4)


def test_texts_that_fill_a_row_are_as_without_a_mask() -> None:
    learner = Learner(trained_state(PARENT, 1), OPTIMIZER, torch.float64)
    plain = Batch.next_tokens(torch.randint(53, (3, 17)))
    masked = plain._replace(starts=torch.zeros_like(plain.tokens))
    one, other = (loss_sum(learner.network, batch).item() for batch in (plain, masked))
    assert one == pytest.approx(other, rel=1e-13)
