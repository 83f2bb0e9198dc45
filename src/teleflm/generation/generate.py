"""Sampling with a key-value cache."""

from collections.abc import Callable, Collection, Sequence

import torch

from teleflm.errors import DataError
from teleflm.generation.decoder import IncrementalDecoder
from teleflm.generation.sampling import GREEDY, Sampler, Sampling
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
    sampling: Sampling = GREEDY,
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
    rooms = [min(max_new_tokens, model.max_position_embeddings - len(p)) for p in prompts]
    texts: list[list[int]] = [[] for _ in prompts]
    # The places of the prompts that are still being written.
    places = [place for place, room in enumerate(rooms) if room > 0]
    if not places:
        return texts
    begun = [prompts[place] for place in places]
    numbers = places if rows is None else [rows[place] for place in places]
    sampler = Sampler(sampling, numbers, begun, model.vocab_size, absent, decoder.device)
    logits, cache = decoder.begin(begun)
    while True:
        chosen = sampler.choose(logits)
        kept = []
        for row, (place, token) in enumerate(zip(places, chosen, strict=True)):
            new = texts[place]
            new.append(token)
            tell(place, token)
            if len(new) < rooms[place] and token not in ends and not is_done(place, new):
                kept.append(row)
        if not kept:
            return texts
        if len(kept) < len(places):
            places, chosen = [places[row] for row in kept], [chosen[row] for row in kept]
            cache.keep(kept)
            sampler.keep(kept)
        logits = decoder.step(chosen, cache)


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
