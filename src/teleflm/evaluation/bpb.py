"""Bits per byte: the loss of held-out text in a unit that does not depend on the tokenizer.

The bytes are those of the text as it was in the corpus. The tokens of our own tokenizers say how
many they are; of others the store does, see `teleflm.data.text_bytes`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean

from teleflm.data.mixture import Mixture
from teleflm.data.reading import held_out_windows, masks_documents
from teleflm.data.text_bytes import text_bytes_between
from teleflm.data.windows import IGNORED, stacked
from teleflm.errors import DataError
from teleflm.model.batch import Batch

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
    loss_sum: Callable[[Batch], float],
    mixture: Mixture,
    *,
    vocab_size: int,
    sequence_length: int,
    tokens: int,
    document_mask: bool = False,
    rows_at_once: int | None = None,
) -> Evaluation | None:
    """Evaluate on the held-out part of each domain, from its beginning.

    Args:
        loss_sum: Σ nats over the targets that count (an engine's).
        mixture: the run's data.
        vocab_size: the model's.
        sequence_length: S, of the windows.
        tokens: the most to read of each domain, in whole windows or conversations, of which one is
            the least.
        document_mask: whether documents do not see each other, as in the run; then the first token
            of each is not predicted.
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
    masks = masks_documents(mixture.domains, document_mask)
    for domain in mixture.domains:
        found = held_out_windows(domain, sequence_length, masks, tokens)
        if found is None or domain.held_out is None or not found[1]:
            continue
        windows, ends = found
        total, count, size = 0.0, 0, 0.0
        rows = min(ends, rows_at_once or max(1, _TOKENS_AT_A_TIME // sequence_length))
        for first in range(0, ends, rows):
            read = stacked([windows.row(index) for index in range(first, min(first + rows, ends))])
            if (largest := max(read.tokens.max(), read.targets.max())) >= vocabulary:
                raise DataError(
                    f"{domain.held_out.path}: token {largest} is outside the vocabulary of "
                    f"{vocabulary}; use the tokenizer this file was made with"
                )
            total += loss_sum(Batch.of(read))
            real = read.targets[read.targets != IGNORED]
            count += real.size
            size += int(lengths[real].sum()) if lengths is not None else 0
        # Of a conversation nobody knows the bytes of what counts by itself.
        of_text = domain.held_out_counted is None
        if lengths is None and of_text and domain.held_out_bytes is not None:
            # The first token is not predicted.
            end = min(ends * sequence_length + 1, domain.held_out.tokens.size)
            size = text_bytes_between(
                domain.held_out, domain.held_out_bytes, opening, 1, end, but_first=masks
            )
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
