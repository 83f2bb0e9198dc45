"""Samplings mean what they mean in transformers."""

from typing import Any

import pytest
import torch
from torch import Tensor

from teleflm.errors import ConfigError
from teleflm.generation.sampling import Sampler, Sampling, narrowed, penalised

ROWS, SIZE = 6, 50
CPU = torch.device("cpu")
SAMPLINGS: list[dict[str, Any]] = [
    {"temperature": 0.7},
    {"top_k": 5},
    {"top_k": 50},
    {"top_k": 90},
    {"top_p": 0.8},
    {"top_p": 0.01},
    {"min_p": 0.2},
    {"min_p": 1.0},
    {"temperature": 1.7, "top_k": 30, "top_p": 0.7, "min_p": 0.05},
    {"temperature": 0.3, "top_k": 9, "top_p": 0.95, "min_p": 0.3, "repetition_penalty": 1.4},
    {"repetition_penalty": 0.6, "top_p": 0.5},
]


def logits() -> Tensor:
    random = torch.Generator().manual_seed(4)
    values = 3 * torch.randn(ROWS, SIZE, dtype=torch.float64, generator=random)
    # Equal ones, and tokens of no probability.
    values[0, :10] = values[0].max()
    values[1, ::3] = -torch.inf
    return values


def written() -> Tensor:
    return torch.randint(SIZE, (ROWS, 12), generator=torch.Generator().manual_seed(8))


def theirs(sampling: dict[str, Any]) -> Tensor:
    """The probabilities that transformers' own processors leave, in the order of its own list."""
    import transformers
    from transformers.generation import GenerationMixin

    config = transformers.GenerationConfig(do_sample=True, **{"top_k": 0, **sampling})
    config.num_return_sequences, config.num_beams = 1, 1
    mixin: Any = GenerationMixin()
    mixin.config = transformers.LlamaConfig()
    processors = mixin._get_logits_processor(config, logits_processor=[])
    return processors(written(), logits()).softmax(-1)


@pytest.mark.parametrize("values", SAMPLINGS, ids=str)
def test_what_is_left_is_what_transformers_leaves(values: dict[str, Any]) -> None:
    sampling = Sampling(**{"temperature": 1.0, **values})
    seen = torch.zeros(ROWS, SIZE, dtype=torch.bool).scatter(1, written(), True)
    found = narrowed(penalised(logits(), seen, sampling.repetition_penalty), sampling)
    expected = theirs(values)
    assert torch.equal(found > 0, expected > 0)
    assert torch.allclose(found / found.sum(-1, keepdim=True), expected, rtol=1e-12)


def test_every_share_is_cut_where_they_cut_it() -> None:
    from transformers import TopPLogitsWarper

    values = torch.randn(20, SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    for share in torch.linspace(0.005, 0.995, 199).tolist():
        expected = TopPLogitsWarper(share)(written(), values) > -torch.inf
        assert torch.equal(narrowed(values, Sampling(1.0, top_p=share)) > 0, expected)


def test_greedy_rows_repeat_less_as_theirs_do() -> None:
    """The prompt counts, and what is written counts as soon as it is."""
    processed = logits()
    sampler = Sampler(
        Sampling(repetition_penalty=1.5), range(ROWS), written().tolist(), SIZE, [], CPU
    )
    from transformers import RepetitionPenaltyLogitsProcessor

    theirs, ids = RepetitionPenaltyLogitsProcessor(1.5), written()
    for _ in range(12):
        expected = theirs(ids, processed).argmax(-1)
        assert sampler.choose(processed) == expected.tolist()
        ids = torch.cat((ids, expected[:, None]), 1)
    kept = [4, 1]
    sampler.keep(kept)
    assert sampler.choose(processed[kept]) == theirs(ids, processed)[kept].argmax(-1).tolist()


def test_no_draw_has_probability_zero() -> None:
    """Not even the first and the last number that a generator may give."""
    values = torch.full((1, 5), -torch.inf).index_fill(1, torch.tensor([1, 3]), 0.0)
    sampler = Sampler(Sampling(1.0), [0], [[0]], 5, [], CPU)
    for number, expected in ((0.0, 1), (0.49, 1), (0.5, 3), (1 - 2.0**-53, 3)):
        drawn = torch.tensor(number, dtype=torch.float64)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "rand", lambda *shape, **how: drawn)  # noqa: B023
            assert sampler.choose(values) == [expected]


def test_rounded_logits_are_narrowed_in_full_precision() -> None:
    values = logits().bfloat16()
    exact = Sampler(Sampling(repetition_penalty=1.01), range(ROWS), [[1]] * ROWS, SIZE, [], CPU)
    rounded = Sampler(Sampling(repetition_penalty=1.01), range(ROWS), [[1]] * ROWS, SIZE, [], CPU)
    assert exact.choose(values.float()) == rounded.choose(values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"temperature": -0.1}, "temperature -0.1: it has to be at least 0"),
        ({"temperature": float("nan")}, "temperature nan"),
        ({"top_k": 0}, "top-k 0: it has to be at least 1"),
        ({"top_p": 0.0}, "top-p 0.0: it has to be above 0"),
        ({"top_p": 1.01}, "top-p 1.01"),
        ({"min_p": -1.0}, "min-p -1.0: it has to be from 0 to 1"),
        ({"min_p": float("nan")}, "min-p nan"),
        ({"repetition_penalty": 0.0}, "repetition-penalty 0.0: it has to be above 0"),
        ({"seed": -1}, "seed -1"),
        ({"seed": 2**63}, "below 2"),
    ],
)
def test_values_that_make_no_sense(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Sampling(**values)
