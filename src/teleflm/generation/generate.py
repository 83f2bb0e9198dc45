"""Sampling with a key-value cache."""

from collections.abc import Callable, Collection, Sequence

import torch

from teleflm.errors import DataError
from teleflm.generation.decoder import IncrementalDecoder
from teleflm.generation.sampling import Sampler, Sampling
from teleflm.model.cache import new_cache
from teleflm.model.network import TeleFLM


def _never(row: int, new: list[int]) -> bool:
    return False


def _untold(row: int, token: int) -> None:
    pass


@torch.inference_mode()
def generate(
    network: TeleFLM | IncrementalDecoder,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    sampling: Sampling = Sampling(),
    *,
    ends: Collection[int] = (),
    absent: Sequence[int] = (),
    rows: Sequence[int] | None = None,
    is_done: Callable[[int, list[int]], bool] = _never,
    tell: Callable[[int, int], object] = _untold,
) -> list[list[int]]:
    """The tokens that follow each of `prompts`, without it: at most `max_new_tokens` of each.

    Prompts of any lengths are written together, and each has the text that it has alone. They end
    with one of `ends`, where `is_done`, or where the context of `max_position_embeddings` tokens is
    full. None of `absent` is ever taken: rows of the embedding that no token of the tokenizer
    stands for.

    Neither the network's mode nor the global random state is touched, so training may call this.

    Args:
        rows: a number for each prompt, by which its draws differ from another's; its place among
            `prompts` unless given. `is_done` and `tell` name a prompt by its place.
        is_done: whether a prompt with these new tokens is to end there.
        tell: called with each token as it is chosen.

    Raises:
        DataError: a prompt that is empty or longer than the context, or a token outside the
            vocabulary.
    """
    decoder = network if isinstance(network, IncrementalDecoder) else IncrementalDecoder(network)
    model = decoder.config
    for prompt in prompts:
        check_prompt(prompt, model.vocab_size, model.max_position_embeddings)
    texts: list[list[int]] = []
    for place, prompt in enumerate(prompts):
        sampler = Sampler(sampling, [place if rows is None else rows[place]], absent)
        room = min(max_new_tokens, model.max_position_embeddings - len(prompt))
        cache = new_cache(model.num_hidden_layers, len(prompt) + room)
        new: list[int] = []
        fed = list(prompt)
        while len(new) < room and not (new and (new[-1] in ends or is_done(place, new))):
            logits = decoder.logits(torch.tensor([fed], device=decoder.device), cache)
            fed = sampler.choose(logits, [[*prompt, *new]])
            new += fed
            tell(place, fed[0])
        texts.append(new)
    return texts


def check_prompt(prompt: Sequence[int], vocab_size: int, context: int) -> None:
    """Raises DataError for a prompt that no model can go on from, as `generate` says."""
    if not prompt:
        raise DataError("the prompt has no tokens; give one to go on from")
    if len(prompt) > context:
        raise DataError(
            f"the prompt has {len(prompt):,} tokens and the model's context {context:,}; shorten it"
        )
    outside = next((token for token in prompt if not 0 <= token < vocab_size), None)
    if outside is not None:
        raise DataError(
            f"token {outside} of the prompt is outside the model's vocabulary of {vocab_size:,}; "
            "use the tokenizer that the model was trained with"
        )
