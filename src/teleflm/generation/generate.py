"""Sampling with a key-value cache."""

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from teleflm.errors import DataError
from teleflm.generation.decoder import IncrementalDecoder
from teleflm.model.cache import new_cache
from teleflm.model.network import TeleFLM


@torch.inference_mode()
def generate(
    network: TeleFLM,
    prompt: list[int],
    max_new_tokens: int,
    *,
    temperature: float = 0.0,
    seed: int = 0,
    ends: Collection[int] = (),
    absent: Sequence[int] = (),
) -> list[int]:
    """The tokens that follow `prompt`, without it: at most `max_new_tokens`.

    They end with one of `ends`, or earlier where the context of `max_position_embeddings` tokens is
    full. At temperature 0 each is the most likely one, otherwise drawn by a generator of its own
    from softmax(logits / temperature). None of `absent` is ever taken: rows of the embedding that
    no token of the tokenizer stands for.

    Neither the network's mode nor the global random state is touched, so training may call this.

    Raises:
        DataError: a prompt that is empty or longer than the context, or a token outside the
            vocabulary.
    """
    model = network.config
    check_prompt(prompt, model.vocab_size, model.max_position_embeddings)
    room = min(max_new_tokens, model.max_position_embeddings - len(prompt))
    decoder = IncrementalDecoder(network)
    cache = new_cache(model.num_hidden_layers, len(prompt) + room)
    device = network.lm_head.weight.device
    random = torch.Generator(device).manual_seed(seed)
    left_out = torch.tensor(absent, dtype=torch.long, device=device)
    new: list[int] = []
    fed = prompt
    while len(new) < room and (not new or new[-1] not in ends):
        (logits,) = decoder.logits(torch.tensor([fed], device=device), cache)
        fed = [_choose(logits.index_fill(0, left_out, -torch.inf), temperature, random)]
        new += fed
    return new


def _choose(logits: Tensor, temperature: float, random: torch.Generator) -> int:
    if temperature == 0.0:
        return int(logits.argmax())
    # The difference first: a tiny temperature must not turn the logits into infinities.
    logits = logits.double()
    probabilities = torch.softmax((logits - logits.max()) / temperature, dim=-1)
    return int(torch.multinomial(probabilities, 1, generator=random))


def check_prompt(prompt: list[int], vocab_size: int, context: int) -> None:
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
