"""Texts that go on from prompts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from teleflm.data.tokenizer import Tokenizer
from teleflm.generation.decoder import IncrementalDecoder
from teleflm.generation.generate import generate
from teleflm.generation.sampling import Sampling

# Why a text ended: a token that ends one, a stop string, max_new_tokens, the model's context.
Finish = Literal["end", "stop", "length", "context"]


@dataclass(frozen=True)
class Completion:
    """What a model wrote behind a prompt.

    Attributes:
        text: without the prompt, the token that ended it, and the stop string.
        tokens: as they were chosen, with both.
    """

    text: str
    tokens: list[int]
    finish: Finish


def write(
    decoder: IncrementalDecoder,
    tokenizer: Tokenizer,
    prompts: Sequence[str | Sequence[int]],
    max_new_tokens: int,
    sampling: Sampling = Sampling(),
    *,
    stops: Sequence[str] = (),
    batch_size: int = 16,
) -> list[Completion]:
    """What follows each prompt, a text as `Tokenizer.encode_prompt` reads it or tokens.

    Raises:
        DataError: as `generate`.
    """
    model = decoder.config
    ids = [tokenizer.encode_prompt(p) if isinstance(p, str) else list(p) for p in prompts]

    def is_done(place: int, new: list[int]) -> bool:
        text = tokenizer.decode_after(ids[place], new)
        return any(stop in text for stop in stops)

    written = generate(
        decoder,
        ids,
        max_new_tokens,
        sampling,
        ends=tokenizer.end_ids,
        absent=tokenizer.absent_ids(model.vocab_size),
        is_done=is_done,
    )
    completions = []
    for prompt, new in zip(ids, written, strict=True):
        text = tokenizer.decode_after(prompt, new)
        cut = min((at for at in map(text.find, stops) if at >= 0), default=None)
        finish: Finish
        if cut is not None:
            finish = "stop"
        elif new and new[-1] in tokenizer.end_ids:
            finish = "end"
        else:
            finish = "length" if len(new) == max_new_tokens else "context"
        completions.append(Completion(text[:cut], new, finish))
    return completions
