"""Cross-entropy over a large vocabulary without the full logits."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from teleflm.model.batch import IGNORED, Batch
from teleflm.model.device import device_kind
from teleflm.model.network import TeleFLM

# Logits that exist at a time, in fp32: 256 MB on a GPU; on a CPU what its caches hold.
_CHUNK_LOGITS = {"cpu": 2**20}
_CHUNK_LOGITS_ELSEWHERE = 2**26
_LEAST = torch.finfo(torch.float32).min  # of the largest score, where a rank has padding alone


class Vocabulary:
    """The rows of the head that this process has: all of them."""

    first = 0

    def rows(self, weight: Tensor) -> int:
        """How many rows of `weight` are tokens; what follows is padding."""
        return len(weight)

    def combine(self, normaliser: Tensor, score: Tensor) -> tuple[Tensor, Tensor]:
        """log Σ exp over the whole vocabulary and the targets' scores, from these rows' (N, 1)
        each; a target that is not among them has the score 0."""
        return normaliser, score

    def most_likely(self, score: Tensor, token: Tensor) -> Tensor:
        """The token of the highest score in the whole vocabulary, the first where several have it,
        from the best one among these rows, (N, 1) each."""
        return token


_WHOLE = Vocabulary()


class _ChunkedCrossEntropy(torch.autograd.Function):
    """The gradients are formed in the forward pass, while a chunk's softmax is at hand: nothing
    of size (N, V) is kept, and no product is computed twice."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        multiplier: Tensor,
        targets: Tensor,
        vocabulary: Vocabulary,
        wants_gradient: bool,
    ) -> Tensor:
        w = weight.to(hidden.dtype)
        wide = torch.promote_types(hidden.dtype, torch.float32)
        multiplier = multiplier.to(wide)
        rows = chunk_rows(len(weight), device_kind(hidden))
        tokens = vocabulary.rows(weight)
        total = torch.zeros((), dtype=torch.float64, device=hidden.device)
        grad_hidden = torch.empty_like(hidden) if wants_gradient else None
        grad_weight = torch.zeros_like(weight, dtype=wide) if wants_gradient else None
        for start in range(0, len(targets), rows):
            h, target = hidden[start : start + rows], targets[start : start + rows]
            counted = (target != IGNORED)[:, None]
            index, is_here = _rows_of(target, vocabulary, weight)
            scores = (h @ w.T).to(wide).mul_(multiplier)
            scores[:, tokens:] = -torch.inf
            score = scores.gather(1, index).where(is_here, 0.0)
            # In place, and exponentials once: they are most of what is not a product.
            largest = scores.amax(dim=-1, keepdim=True).clamp_(min=_LEAST)
            exponentials = scores.sub_(largest).exp_()
            own = exponentials.sum(dim=-1, keepdim=True).log_().add_(largest)
            normaliser, score = vocabulary.combine(own, score)
            total += ((normaliser - score) * counted).sum()
            if grad_hidden is None or grad_weight is None:
                continue
            # d loss / d (h Wᵀ) = (softmax − one-hot) · multiplier
            factor = counted * multiplier
            gradient = exponentials.mul_((largest - normaliser).exp_().mul_(factor))
            gradient.scatter_add_(1, index, -(is_here * factor))
            narrow = gradient.to(hidden.dtype)
            grad_hidden[start : start + rows] = narrow @ w
            if narrow.dtype is wide:
                # In place, and yet counted: nobody counts what is called addmm_.
                torch.addmm(grad_weight, narrow.T, h, out=grad_weight)
            else:
                grad_weight += narrow.T @ h
        if wants_gradient:
            ctx.save_for_backward(grad_hidden, grad_weight)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_weight = ctx.saved_tensors
        (scale,) = grad_outputs
        return grad_hidden * scale, grad_weight * scale, None, None, None, None


def _rows_of(target: Tensor, vocabulary: Vocabulary, weight: Tensor) -> tuple[Tensor, Tensor]:
    """The rows of `weight` that score targets (N,), and whether it has them, (N, 1) each."""
    here = target[:, None] - vocabulary.first
    is_here = (here >= 0) & (here < vocabulary.rows(weight))
    return here.clamp(0, len(weight) - 1), is_here


def chunk_rows(vocab_size: int, device: str) -> int:
    """Rows of logits that are formed at a time."""
    return max(128, _CHUNK_LOGITS.get(device, _CHUNK_LOGITS_ELSEWHERE) // vocab_size)


def cross_entropy_sum(
    hidden: Tensor,
    weight: Tensor,
    multiplier: Tensor,
    targets: Tensor,
    vocabulary: Vocabulary = _WHOLE,
) -> Tensor:
    """Σ −log softmax(h Wᵀ · multiplier)[target], in nats, as a float64 scalar.

    Args:
        hidden: (…, D) in the compute precision.
        weight: the head's (V, D), in its own precision.
        multiplier: 0-dim logit multiplier (no gradient).
        targets: (…) token ids; `IGNORED` ones count for nothing.
        vocabulary: which rows of the head `weight` is.
    """
    # A function is not told of `no_grad`, in which its inputs require gradients as ever.
    wants_gradient = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    total: Tensor = _ChunkedCrossEntropy.apply(
        hidden.reshape(-1, hidden.shape[-1]),
        weight,
        multiplier,
        targets.reshape(-1),
        vocabulary,
        wants_gradient,
    )
    return total


class TokenScores(NamedTuple):
    """Of each target of a batch, shape (B, S): −log p of the target in nats, float32 or
    wider, and whether no other token is likelier; 0 and False where none counts."""

    nats: Tensor
    is_greedy: Tensor


@torch.no_grad()
def token_scores(
    hidden: Tensor,
    weight: Tensor,
    multiplier: Tensor,
    targets: Tensor,
    vocabulary: Vocabulary = _WHOLE,
) -> TokenScores:
    """What `cross_entropy_sum`, whose arguments these are, adds up; without gradients."""
    w, wide = weight.to(hidden.dtype), torch.promote_types(hidden.dtype, torch.float32)
    tokens = vocabulary.rows(weight)
    rows = chunk_rows(len(weight), device_kind(hidden))
    flat = hidden.reshape(-1, hidden.shape[-1])
    parts = []
    for h, target in zip(flat.split(rows), targets.reshape(-1).split(rows), strict=True):
        index, is_here = _rows_of(target, vocabulary, weight)
        scores = (h @ w.T).to(wide).mul_(multiplier.to(wide))
        # A number, as a rank may have padding alone.
        scores[:, tokens:] = _LEAST
        score = scores.gather(1, index).where(is_here, 0.0)
        best, token = scores.max(dim=-1, keepdim=True)
        likeliest = vocabulary.most_likely(best, token + vocabulary.first)
        own = scores.logsumexp(dim=-1, keepdim=True)
        normaliser, score = vocabulary.combine(own, score)
        counted = (target != IGNORED)[:, None]
        parts.append(((normaliser - score) * counted, (likeliest == target[:, None]) & counted))
    nats, is_greedy = (torch.cat(kind).view(targets.shape) for kind in zip(*parts, strict=True))
    return TokenScores(nats, is_greedy)


def loss_sum(network: TeleFLM, batch: Batch) -> Tensor:
    """Σ loss in nats over the targets that count."""
    return cross_entropy_sum(
        network.hidden(batch.tokens, batch.starts),
        network.lm_head.weight,
        network.logit_multiplier,
        batch.targets,
    )


def network_scores(network: TeleFLM, batch: Batch) -> TokenScores:
    """The scores of a batch's targets."""
    return token_scores(
        network.hidden(batch.tokens, batch.starts),
        network.lm_head.weight,
        network.logit_multiplier,
        batch.targets,
    )
