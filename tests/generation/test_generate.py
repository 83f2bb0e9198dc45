"""Generation: the cache changes nothing, and training may call it."""

from typing import Any

import pytest
import torch

from teleflm.config.model import ModelConfig
from teleflm.errors import DataError
from teleflm.generation.generate import generate
from teleflm.generation.sampling import Sampling
from teleflm.model.init import build_model, initial_state
from teleflm.model.network import TeleFLM

PROMPT = [5, 9, 11, 3]


def text_of(network: TeleFLM, prompt: list[int], number: int, *how: Any, **more: Any) -> list[int]:
    (text,) = generate(network, [prompt], number, *how, **more)
    return text


@pytest.fixture(params=[1, 2], ids=["multi-head", "grouped"])
def network(request: pytest.FixtureRequest) -> TeleFLM:
    model = ModelConfig.model_validate(
        {
            "vocab_size": 40,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 4 // request.param,
            "max_position_embeddings": 48,
            "output_mult": 0.3,
        }
    )
    state = {name: 8 * w if w.dim() == 2 else w for name, w in initial_state(model, seed=2).items()}
    return build_model(model, state, torch.float32)


def without_cache(network: TeleFLM, prompt: list[int], number: int) -> list[int]:
    tokens = list(prompt)
    for _ in range(number):
        with torch.no_grad():
            tokens.append(int(network(torch.tensor([tokens]))[0, -1].argmax()))
    return tokens[len(prompt) :]


def test_the_cache_changes_nothing(network: TeleFLM) -> None:
    expected = without_cache(network, PROMPT, 32)
    assert len(set(expected)) > 5
    assert text_of(network, PROMPT, 32) == expected


def test_it_stops_after_the_end_of_text(network: TeleFLM) -> None:
    free = text_of(network, PROMPT, 32)
    end = free[7]
    expected = free[: free.index(end) + 1]
    assert text_of(network, PROMPT, 32, ends=[end, 39]) == expected


def test_it_stops_where_the_context_ends(network: TeleFLM) -> None:
    assert len(text_of(network, PROMPT, 1000)) == 48 - len(PROMPT)
    assert text_of(network, [5] * 48, 3) == []
    with pytest.raises(DataError, match="49 tokens and the model's context 48"):
        text_of(network, [5] * 49, 3)


def test_tokens_outside_the_vocabulary(network: TeleFLM) -> None:
    for token in (40, -1):
        with pytest.raises(DataError, match=f"token {token} .* vocabulary of 40"):
            text_of(network, [1, token], 3)


def test_an_empty_prompt_is_refused(network: TeleFLM) -> None:
    with pytest.raises(DataError, match="no tokens; give one"):
        text_of(network, [], 3)


@pytest.mark.parametrize("temperature", [0.0, 5.0])
def test_absent_tokens_are_never_written(network: TeleFLM, temperature: float) -> None:
    with torch.no_grad():
        # The most likely tokens are among those that the tokenizer lacks.
        network.lm_head.weight[[7, *range(30, 40)]] *= 20
    absent = [7, *range(30, 40)]
    free = text_of(network, PROMPT, 32, Sampling(temperature))
    assert set(free) & set(absent)
    kept = text_of(network, PROMPT, 32, Sampling(temperature), absent=absent)
    assert len(kept) == 32 and not set(kept) & set(absent)


def test_draws_follow_the_seed_and_the_temperature(network: TeleFLM) -> None:
    draws = {tuple(text_of(network, PROMPT, 8, Sampling(1.0, seed=s))) for s in range(6)}
    assert len(draws) > 3
    again = text_of(network, PROMPT, 8, Sampling(1.0, seed=0))
    assert tuple(again) in draws
    greedy = text_of(network, PROMPT, 8)
    assert text_of(network, PROMPT, 8, Sampling(1e-320, seed=1)) == greedy


def test_draws_have_the_softmax_s_frequencies(network: TeleFLM) -> None:
    with torch.no_grad():
        expected = torch.softmax(network(torch.tensor([PROMPT]))[0, -1] / 0.5, dim=-1)
    draws = [text_of(network, PROMPT, 1, Sampling(0.5, seed=s))[0] for s in range(600)]
    measured = torch.bincount(torch.tensor(draws), minlength=40) / len(draws)
    assert float((measured - expected).abs().max()) < 0.07


@pytest.mark.parametrize("autocast", [False, True])
def test_training_does_not_notice(network: TeleFLM, autocast: bool) -> None:
    network.train()
    loss = network(torch.tensor([PROMPT])).square().mean()
    graphs: list[bool] = []
    hook = network.model.embed_tokens.register_forward_hook(
        lambda *call: graphs.append(call[2].requires_grad)
    )
    before = torch.get_rng_state()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        new = text_of(network, PROMPT, 4, Sampling(0.7))
    hook.remove()
    assert len(new) == 4
    assert graphs == [False] * 4
    assert network.training
    assert torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(p.grad is None for p in network.parameters())
    loss.backward()
    assert all(p.requires_grad and p.grad is not None for p in network.parameters())
