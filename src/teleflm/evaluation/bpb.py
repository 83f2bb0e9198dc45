"""Bits per byte: the loss of held-out text in a unit that does not depend on the tokenizer.

The bytes are those of the text as it was in the corpus. The tokens of our own tokenizers say how
many they are; of others the store does, see `teleflm.data.text_bytes`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor

from teleflm.data.loader import held_out_windows
from teleflm.data.mixture import Mixture
from teleflm.data.text_bytes import text_bytes_between
from teleflm.errors import DataError

# Rows at a time, so that an evaluation needs no more memory than a small training step.
_TOKENS_AT_A_TIME = 4096


@dataclass(frozen=True)
class Evaluation:
    """Held-out figures.

    Attributes:
        loss: nats a token over all domains' tokens.
        bpb: bits per byte of each domain; empty where the bytes are not known.
        bpb_mean: their plain mean over domains, None without them.
        tokens, bytes: how much was predicted.
    """

    loss: float
    bpb: dict[str, float]
    bpb_mean: float | None
    tokens: int
    bytes: int


def evaluate(
    loss_sum: Callable[[Tensor], float],
    mixture: Mixture,
    *,
    vocab_size: int,
    sequence_length: int,
    tokens: int,
    rows_at_once: int | None = None,
) -> Evaluation | None:
    """Evaluate on the held-out part of each domain, from its beginning.

    Args:
        loss_sum: Σ nats over the predictions of token rows (B, S + 1), -1 pads (an engine's).
        mixture: the run's data.
        vocab_size: the model's.
        sequence_length: S, of the windows.
        tokens: the most to predict of each domain, in whole windows, of which one is the least.
        rows_at_once: that `loss_sum` is given; of about 4,096 tokens unless given.

    Returns:
        None where no domain has a held-out part.

    Raises:
        DataError: a held-out token outside the vocabulary.
    """
    lengths = mixture.tokenizer.byte_lengths if mixture.tokenizer else None
    opening = len(mixture.tokenizer.opening) if mixture.tokenizer else 0
    vocabulary = min(vocab_size, mixture.vocab_size or vocab_size)
    nats: dict[str, float] = {}
    counts: dict[str, int] = {}
    sizes: dict[str, float] = {}
    for domain in mixture.domains:
        if domain.held_out is None:
            continue
        total, count, size = 0.0, 0, 0.0
        left = max(1, tokens // sequence_length)
        rows = min(left, rows_at_once or max(1, _TOKENS_AT_A_TIME // sequence_length))
        for windows in held_out_windows(domain.held_out, sequence_length, rows):
            window = windows[:left]
            left -= len(window)
            if window.max() >= vocabulary:
                raise DataError(
                    f"{domain.held_out.path}: token {window.max()} is outside the vocabulary of "
                    f"{vocabulary}; use the tokenizer this file was made with"
                )
            total += loss_sum(torch.from_numpy(window))
            real = window[:, 1:][window[:, 1:] >= 0]
            count += real.size
            size += int(lengths[real].sum()) if lengths is not None else 0
            if not left:
                break
        if lengths is None and domain.held_out_bytes is not None:
            # The first token is not predicted.
            sizes_of = domain.held_out_bytes
            size = text_bytes_between(domain.held_out, sizes_of, opening, 1, count + 1)
        if count:
            nats[domain.name], counts[domain.name], sizes[domain.name] = total, count, size
    if not nats:
        return None
    bpb = {name: nats[name] / math.log(2) / sizes[name] for name in nats if sizes[name]}
    return Evaluation(
        loss=sum(nats.values()) / sum(counts.values()),
        bpb=bpb,
        # Exactly rounded, so that the order of the domains has no say.
        bpb_mean=fmean(bpb.values()) if bpb else None,
        tokens=sum(counts.values()),
        bytes=round(sum(sizes.values())),
    )
