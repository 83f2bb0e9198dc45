"""How the next token is drawn from logits."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from teleflm.errors import ConfigError


@dataclass(frozen=True)
class Sampling:
    """What narrows down the next token, in this order and with these meanings as in transformers.

    Attributes:
        repetition_penalty: logits of the tokens that a row has, its prompt's too, are divided by it
            where they are positive and multiplied where they are negative (arXiv 1909.05858).
        temperature: divides the logits; at 0 the most likely token is taken, and the rest idles.
        top_k: so many of the likeliest tokens stay, with more where the last of them are equal.
        top_p: the fewest likeliest tokens stay that together have this probability
            (arXiv 1904.09751).
        min_p: tokens stay whose probability is this share of the likeliest one's or more
            (arXiv 2407.01082).
        seed: of the draws.

    Raises ConfigError for a value that makes no sense.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value, makes_sense, sense in (
            ("temperature", self.temperature, 0 <= self.temperature < np.inf, "at least 0"),
            ("top-k", self.top_k, self.top_k is None or self.top_k >= 1, "at least 1"),
            ("top-p", self.top_p, 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("min-p", self.min_p, 0 <= self.min_p <= 1, "from 0 to 1"),
            (
                "repetition-penalty",
                self.repetition_penalty,
                0 < self.repetition_penalty < np.inf,
                "above 0; 1 changes nothing",
            ),
            ("seed", self.seed, 0 <= self.seed < 2**63, "at least 0 and below 2**63"),
        ):
            if not makes_sense:
                raise ConfigError(f"--{name} {value}: it has to be {sense}")


GREEDY = Sampling()


class Sampler:
    """The draws of rows that are written together. Each row has a generator of its own, so that
    what it draws depends on no other row.

    Args:
        rows: a number for each row, by which its draws differ from another's.
        prompts: token ids of each row.
        vocab_size: how many logits a row has.
        absent: ids that are never taken.
        device: where the logits are.
    """

    def __init__(
        self,
        sampling: Sampling,
        rows: Sequence[int],
        prompts: Sequence[Sequence[int]],
        vocab_size: int,
        absent: Sequence[int],
        device: torch.device,
    ) -> None:
        self._sampling = sampling
        self._random = [_generator(sampling.seed, row) for row in rows]
        self._absent = torch.tensor(absent, dtype=torch.long, device=device)
        self._seen: Tensor | None = None
        if sampling.repetition_penalty != 1.0:
            self._seen = torch.zeros(len(prompts), vocab_size, dtype=torch.bool)
            for row, prompt in zip(self._seen, prompts, strict=True):
                row[list(prompt)] = True
            self._seen = self._seen.to(device)

    def choose(self, logits: Tensor) -> list[int]:
        """A token for each row, of logits (B, V)."""
        sampling = self._sampling
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        logits = logits.index_fill(1, self._absent, -torch.inf)
        if self._seen is not None:
            logits = penalised(logits, self._seen, sampling.repetition_penalty)
        if sampling.temperature == 0.0:
            tokens = logits.argmax(-1)
        else:
            drawn = [torch.rand((), dtype=torch.float64, generator=each) for each in self._random]
            # The same draws on every device: a number of the CPU's, and the sum that passes it.
            sums = narrowed(logits, sampling).cumsum(-1)
            wanted = torch.stack(drawn).to(sums.device)[:, None] * sums[:, -1:]
            tokens = torch.searchsorted(sums, wanted, right=True)[:, 0]
        if self._seen is not None:
            self._seen[torch.arange(len(tokens), device=tokens.device), tokens] = True
        chosen: list[int] = tokens.tolist()
        return chosen

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows, by their places."""
        self._random = [self._random[row] for row in rows]
        if self._seen is not None:
            self._seen = self._seen[list(rows)]


def penalised(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Logits (B, V) with those of `seen` (B, V) made less likely."""
    return torch.where(seen, torch.where(logits < 0, logits * penalty, logits / penalty), logits)


def narrowed(logits: Tensor, sampling: Sampling) -> Tensor:
    """Probabilities (B, V) in float64 of what temperature, top-k, top-p and min-p leave of logits
    (B, V); together 1 or less."""
    # The difference first: a tiny temperature must not turn the logits into infinities.
    logits = logits.double()
    logits = (logits - logits.amax(-1, keepdim=True)) / sampling.temperature
    if sampling.top_k is not None and sampling.top_k < logits.shape[-1]:
        least = logits.topk(sampling.top_k).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    probabilities = logits.softmax(-1)
    if sampling.top_p < 1.0:
        # From the least likely one on: those that together have no more than what is left out.
        ordered, tokens = probabilities.sort()
        removed = ordered.cumsum(-1) <= 1 - sampling.top_p
        removed[:, -1] = False
        probabilities = probabilities.masked_fill(removed.scatter(1, tokens, removed), 0.0)
    if sampling.min_p > 0.0:
        least = sampling.min_p * probabilities.amax(-1, keepdim=True)
        probabilities = probabilities.masked_fill(probabilities < least, 0.0)
    return probabilities


def _generator(seed: int, row: int) -> torch.Generator:
    # Mixed, so that the second row of one seed is not the first one of the next.
    (mixed,) = np.random.SeedSequence((seed, row)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(mixed))
