"""The code in `teleflm` exports: whatever a release of transformers passes is heeded or refused."""

import inspect
from typing import Any

import pytest
import torch
from transformers import DynamicCache, StaticCache
from transformers.modeling_outputs import CausalLMOutputWithPast

from teleflm.checkpoint.released import modeling_teleflm as released
from teleflm.checkpoint.released.configuration_teleflm import TeleFLMConfig
from teleflm.checkpoint.released.modeling_teleflm import CACHE, TeleFLMForCausalLM

PROMPT = torch.tensor([[5, 6, 7, 8]])
NEW = 8


@pytest.fixture(scope="module")
def net() -> Any:
    """A tiny model whose next token depends on all before it."""
    config = TeleFLMConfig(
        vocab_size=90,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.4,
    )
    torch.manual_seed(2)
    return TeleFLMForCausalLM(config).eval()


def text(net: Any, **options: Any) -> list[int]:
    """The tokens that `generate` adds to the prompt."""
    options = {"max_new_tokens": NEW, "do_sample": False, "eos_token_id": None, **options}
    added: list[int] = net.generate(PROMPT, **options)[0, PROMPT.shape[1] :].tolist()
    return added


def filled(net: Any) -> Any:
    """A cache with the prompt in it."""
    return getattr(net(PROMPT, use_cache=True), CACHE)


# --- the cache, by any name


def test_the_cache_is_used(net: Any) -> None:
    lengths: list[int] = []
    watch = net.register_forward_pre_hook(
        lambda _, args, given: lengths.append(given["input_ids"].shape[1]), with_kwargs=True
    )
    cached = text(net)
    watch.remove()
    assert cached == text(net, use_cache=False)
    assert lengths == [PROMPT.shape[1]] + [1] * (NEW - 1)


@pytest.mark.parametrize("name", ["cache", "past_key_values"])
def test_both_names_are_one_cache(net: Any, name: str) -> None:
    whole = net(torch.cat((PROMPT, PROMPT), dim=1)).logits[:, PROMPT.shape[1] :]
    second = net(PROMPT, **{name: filled(net)}).logits
    assert torch.allclose(second, whole, atol=1e-5)
    assert not torch.allclose(net(PROMPT).logits, whole, atol=1e-2)


def test_it_comes_back_under_the_name_of_the_release(net: Any) -> None:
    out = net(PROMPT, use_cache=True)
    assert isinstance(out, CausalLMOutputWithPast)
    assert CACHE in out and isinstance(out[CACHE], DynamicCache)
    assert out[CACHE].get_seq_length() == PROMPT.shape[1]
    assert CACHE not in net(PROMPT, use_cache=False)


def test_a_cache_given_twice(net: Any) -> None:
    with pytest.raises(ValueError, match="cache and past_key_values"):
        net(PROMPT, cache=filled(net), past_key_values=filled(net))


def rename(net: Any, monkeypatch: pytest.MonkeyPatch, name: str | None) -> None:
    """Have `generate` pass the cache by a name of its own, or by another way than an argument."""
    prepare = net.prepare_inputs_for_generation

    # By the name kwargs `generate` knows that a mask is taken.
    def renamed(*args: Any, **kwargs: Any) -> dict[str, Any]:
        inputs: dict[str, Any] = prepare(*args, **kwargs)
        cache = inputs.pop(CACHE, None)
        return inputs | ({name: cache} if name else {})

    monkeypatch.setattr(net, "prepare_inputs_for_generation", renamed)


def test_the_next_renaming_is_seen(net: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rename(net, monkeypatch, "memory")
    with pytest.raises(TypeError, match="the argument memory"):
        text(net)


@pytest.mark.parametrize("padded", [False, True])
def test_a_cache_that_does_not_arrive_is_seen(
    net: Any, monkeypatch: pytest.MonkeyPatch, padded: bool
) -> None:
    rename(net, monkeypatch, None)
    # Newer releases pass no mask where nothing is padded, so the positions have to tell.
    options = {"attention_mask": torch.tensor([[0, 1, 1, 1]])} if padded else {}
    with pytest.raises(ValueError, match="attention_mask has" if padded else "attention_mask|posi"):
        text(net, **options)


def test_positions_without_the_tokens_before_them(net: Any) -> None:
    with pytest.raises(ValueError, match=r"position_ids go to 4 .* only 1 token"):
        net(PROMPT[:, :1], position_ids=torch.tensor([[4]]))
    net(PROMPT[:, :1], position_ids=torch.tensor([[4]]), **{CACHE: filled(net)})


@pytest.mark.parametrize("width", [3, 5])
def test_a_mask_of_another_length(net: Any, width: int) -> None:
    with pytest.raises(ValueError, match=rf"shape \(1, {width}\), which is not \(batch, 4\)"):
        net(PROMPT, attention_mask=torch.ones(1, width))
    with pytest.raises(ValueError, match=rf"\(1, {width}\), which is not \(batch, 8\)"):
        net(PROMPT, attention_mask=torch.ones(1, width), **{CACHE: filled(net)})


def test_a_static_cache_is_refused(net: Any) -> None:
    with pytest.raises(ValueError, match="DynamicCache"):
        text(net, cache_implementation="static")
    with pytest.raises(ValueError, match=r"10 keys for 4 tokens; .* DynamicCache"):
        net(PROMPT, **{CACHE: StaticCache(config=net.config, max_cache_len=10)})


# --- everything else that may be passed


def test_what_is_unknown_is_refused(net: Any) -> None:
    for known in (net, net.model):
        with pytest.raises(TypeError, match="the argument sliding_window"):
            known(PROMPT, sliding_window=None)


@pytest.mark.parametrize(
    ("name", "value"), [("output_attentions", True), ("return_dict", False)], ids=str
)
def test_what_there_is_not_is_refused(net: Any, name: str, value: bool) -> None:
    with pytest.raises(ValueError, match=f"{name}={value}"):
        net(PROMPT, **{name: value})
    out = net(PROMPT, **{name: not value}, cache_position=torch.arange(4)).logits
    assert torch.equal(out, net(PROMPT, **{name: None}).logits)


def test_what_the_config_asks_for_is_heeded_or_refused(
    net: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(net.config, "output_hidden_states", True)
    assert len(net(PROMPT).hidden_states) == 3
    monkeypatch.setattr(net.config, "return_dict", False)
    with pytest.raises(ValueError, match="return_dict=False"):
        net(PROMPT)


def test_documents_packed_in_a_row_do_not_see_each_other(net: Any) -> None:
    parts = torch.tensor([[5, 6, 7, 8, 9]]), torch.tensor([[11, 12, 13]])
    positions = torch.cat([torch.arange(part.shape[1])[None] for part in parts], dim=1)
    packed = net(torch.cat(parts, dim=1), position_ids=positions).logits
    apart = torch.cat([net(part).logits for part in parts], dim=1)
    torch.testing.assert_close(packed, apart, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="begin anew behind cached tokens"):
        net(parts[1], position_ids=torch.tensor([[4, 5, 0]]), **{CACHE: filled(net)})


def test_the_trainer_s_count_of_tokens(net: Any) -> None:
    # A Trainer passes it to a forward that takes any keyword; each loss is a share of the step's.
    kinds = {p.kind for p in inspect.signature(net.forward).parameters.values()}
    assert inspect.Parameter.VAR_KEYWORD in kinds
    mean = net(PROMPT, labels=PROMPT).loss
    share = net(PROMPT, labels=PROMPT, num_items_in_batch=torch.tensor(12)).loss
    assert torch.allclose(share, mean * 3 / 12, rtol=1e-6)


def test_an_evaluation_by_the_trainer_leaves_the_cache_out(net: Any) -> None:
    assert released.CACHE in net.config.keys_to_ignore_at_inference
