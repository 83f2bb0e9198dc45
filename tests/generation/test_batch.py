"""Rows that are written together have the text that each has alone."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from teleflm.checkpoint.open import load
from teleflm.generation import cache as caches
from teleflm.generation.cache import Cache
from teleflm.generation.decoder import IncrementalDecoder
from teleflm.generation.generate import generate
from teleflm.generation.sampling import Sampling
from teleflm.model.network import TeleFLM
from tests.families import network_of, save

# Of all lengths, two of them equal, the longest neither first nor last; 64 is the context.
LENGTHS = (5, 1, 23, 9, 60, 9, 2)
# Each has a feature that attention or positions depend on.
NAMES = ("llama", "yarn", "biased", "qwen3 window", "smollm3", "smollm3 window", "tied granite")


def prompts() -> list[list[int]]:
    random = torch.Generator().manual_seed(1)
    return [torch.randint(97, (length,), generator=random).tolist() for length in LENGTHS]


@pytest.fixture(scope="module", params=NAMES)
def network(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TeleFLM:
    """A random network of a family, sharp enough that no two tokens are nearly equal."""
    theirs = network_of(request.param, torch.float32)
    return load(save(theirs, tmp_path_factory.mktemp("model")))


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Caches that grow several times in 40 tokens, and prompts that are read in several goes."""
    monkeypatch.setattr(caches, "PIECE", 8)
    monkeypatch.setattr("teleflm.generation.decoder._TOKENS_AT_ONCE", 30)
    yield


def alone(network: TeleFLM, number: int, *how: Any, **more: Any) -> list[list[int]]:
    return [
        generate(network, [prompt], number, *how, rows=[place], **more)[0]
        for place, prompt in enumerate(prompts())
    ]


def test_a_row_s_text_is_that_of_it_alone(network: TeleFLM) -> None:
    expected = alone(network, 40)
    assert [len(text) for text in expected] == [40, 40, 40, 40, 4, 40, 40]
    assert len({tuple(text[:4]) for text in expected}) > 3
    assert generate(network, prompts(), 40) == expected


def test_rows_that_end_leave_the_others_as_they_were(network: TeleFLM) -> None:
    free = alone(network, 40)
    ends = [free[0][3], free[3][7]]

    def is_done(place: int, new: list[int]) -> bool:
        return len(new) == 10 * place + 1

    expected = alone(network, 40, ends=ends)
    expected = [text[: 10 * place + 1] for place, text in enumerate(expected)]
    assert len({len(text) for text in expected}) > 3
    assert generate(network, prompts(), 40, ends=ends, is_done=is_done) == expected


@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_a_row_s_draws_are_its_own(network: TeleFLM, penalty: float) -> None:
    sampling = Sampling(0.8, top_k=20, top_p=0.9, repetition_penalty=penalty, seed=5)
    expected = alone(network, 12, sampling)
    assert generate(network, prompts(), 12, sampling) == expected
    others = generate(network, prompts()[::-1], 12, sampling, rows=[6, 5, 4, 3, 2, 1, 0])
    assert others[::-1] == expected
    # Two rows of one prompt are two draws, and a seed's second row is not the next one's first.
    twice = generate(network, [prompts()[2]] * 2, 12, sampling)
    later = generate(network, [prompts()[2]], 12, Sampling(**{**vars(sampling), "seed": 6}))
    assert len({tuple(text) for text in (*twice, *later)}) == 3


def test_tokens_are_told_as_they_come(network: TeleFLM) -> None:
    told: list[tuple[int, int]] = []
    texts = generate(network, prompts(), 5, tell=lambda place, token: told.append((place, token)))
    assert told[: len(texts)] == [(place, text[0]) for place, text in enumerate(texts)]
    for place, text in enumerate(texts):
        assert [token for at, token in told if at == place] == text


def test_a_cache_takes_what_it_needs_and_gives_back_what_it_does_not() -> None:
    cache = Cache(1, [3, 8])
    for row, length in enumerate((3, 8)):
        cache.place(0, row, *(torch.full((1, 2, length, 4), row + 1.0) for _ in range(2)))
    seen = cache.seen(torch.device("cpu"))
    assert seen is not None and seen[:, 0, 0].sum(1).tolist() == [3, 8]
    assert cache.capacity == 8
    cache.advance()
    keys, _ = cache.append(0, *(torch.full((2, 2, 1, 4), 9.0) for _ in range(2)))
    assert (cache.lengths, cache.columns, cache.capacity) == ([4, 9], 9, 16)
    assert keys[0, 0, :, 0].tolist() == [0] * 5 + [1] * 3 + [9]
    assert keys[1, 0, :, 0].tolist() == [2] * 8 + [9]
    cache.keep([0])
    assert (cache.lengths, cache.columns, cache.capacity) == ([4], 4, 8)
    assert cache.seen(torch.device("cpu")) is None
    cache.advance()
    keys, _ = cache.append(0, *(torch.full((1, 2, 1, 4), 7.0) for _ in range(2)))
    assert keys[0, 0, :, 0].tolist() == [1, 1, 1, 9, 7]


def test_a_long_prompt_takes_no_room_for_the_whole_context(network: TeleFLM) -> None:
    with torch.inference_mode():
        _, cache = IncrementalDecoder(network).begin([[1, 2, 3]])
    assert cache.capacity == 8 < network.config.max_position_embeddings
