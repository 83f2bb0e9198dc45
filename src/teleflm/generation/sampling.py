"""How the next token is drawn from logits."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Sampling:
    """What narrows down the next token, in this order, as in transformers.

    Attributes:
        repetition_penalty: logits of the tokens that a row has, its prompt's too, are divided by it
            where they are positive and multiplied where they are negative (arXiv 1909.05858).
        temperature: divides the logits; at 0 the most likely token is taken, whatever follows here.
        top_k: so many of the likeliest tokens stay.
        top_p: the fewest likeliest tokens stay that together have this probability
            (arXiv 1904.09751).
        min_p: tokens stay whose probability is this share of the likeliest one's or more
            (arXiv 2407.01082).
        seed: of the draws; each row has a generator of its own.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0


class Sampler:
    """The draws of rows that are written together.

    Args:
        rows: the number of each row, by which its draws differ from another row's.
        absent: ids that are never taken.
    """

    def __init__(self, sampling: Sampling, rows: Sequence[int], absent: Sequence[int] = ()) -> None:
        self._sampling = sampling
        self._random = [_generator(sampling.seed, row) for row in rows]
        self._absent = torch.tensor(absent, dtype=torch.long)

    def choose(self, logits: Tensor, written: Sequence[Sequence[int]]) -> list[int]:
        """A token for each row of logits (B, V), whose `written` are the tokens that it has."""
        sampling = self._sampling
        if len(self._absent):
            logits = logits.index_fill(1, self._absent.to(logits.device), -torch.inf)
        logits = penalised(logits, written, sampling.repetition_penalty)
        if sampling.temperature == 0.0:
            return logits.argmax(-1).tolist()
        probabilities = narrowed(logits, sampling)
        drawn = [torch.rand((), dtype=torch.float64, generator=random) for random in self._random]
        # The same draws on every device: a number of the CPU's and the sum that passes it.
        sums = probabilities.cumsum(-1)
        wanted = torch.stack(drawn).to(sums.device)[:, None] * sums[:, -1:]
        return torch.searchsorted(sums, wanted, right=True)[:, 0].tolist()

    def keep(self, places: Sequence[int]) -> None:
        """Go on with these of the rows."""
        self._random = [self._random[place] for place in places]


def penalised(logits: Tensor, written: Sequence[Sequence[int]], penalty: float) -> Tensor:
    """Logits (B, V) with what each row has written made less likely."""
    if penalty == 1.0:
        return logits
    logits = logits.clone()
    for row, tokens in zip(logits, written, strict=True):
        seen = torch.tensor(sorted(set(tokens)), device=logits.device)
        values = row[seen]
        row[seen] = torch.where(values < 0, values * penalty, values / penalty)
    return logits


def narrowed(logits: Tensor, sampling: Sampling) -> Tensor:
    """Probabilities (B, V) in float64 of what temperature, top-k, top-p and min-p leave."""
    # The difference first: a tiny temperature must not turn the logits into infinities.
    logits = logits.double()
    logits = (logits - logits.amax(-1, keepdim=True)) / sampling.temperature
    if sampling.top_k is not None and sampling.top_k < logits.shape[-1]:
        least = logits.topk(sampling.top_k).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if sampling.top_p < 1.0:
        ordered, places = logits.sort(descending=True)
        probabilities = ordered.softmax(-1)
        before = probabilities.cumsum(-1) - probabilities
        removed = (before >= sampling.top_p).index_fill(1, places.new_zeros(1), False)
        logits = logits.masked_fill(
            torch.zeros_like(removed).scatter(1, places, removed), -torch.inf
        )
    probabilities = logits.softmax(-1)
    if sampling.min_p > 0.0:
        kept = probabilities >= sampling.min_p * probabilities.amax(-1, keepdim=True)
        probabilities = probabilities * kept
        probabilities = probabilities / probabilities.sum(-1, keepdim=True)
    return probabilities


def _generator(seed: int, row: int) -> torch.Generator:
    # Mixed, so that the second row of one seed is not the first one of the next.
    mixed = np.random.SeedSequence((seed, row)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(mixed[0]))
