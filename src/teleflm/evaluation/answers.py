"""Held-out conversations whose last reply the model writes itself."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from teleflm.data.mixture import Domain, Mixture
from teleflm.data.tokenizer import Tokenizer
from teleflm.generation.generate import generate
from teleflm.model.network import TeleFLM

# Written together.
_AT_ONCE = 16
# A reply that goes on for so many tokens beyond what is expected is another one.
_MORE = 8


@dataclass(frozen=True)
class Answer:
    """The model's reply to a conversation.

    Attributes:
        prompt: the conversation up to it, with the template's marks.
        text: what the model wrote.
        expected: the reply that is in the conversation.
        is_exact: whether both are the same but for white space around them, and the model's ends
            where the other does.
    """

    prompt: str
    text: str
    expected: str
    is_exact: bool


def answers(network: TeleFLM, mixture: Mixture, number: int, context: int) -> list[Answer]:
    """Greedy replies to held-out conversations of each domain, evenly apart.

    Args:
        network: the whole model.
        number: conversations of a domain, at most.
        context: the longest conversation, in tokens; longer ones are left out.

    Returns:
        None of what has no conversations held out.
    """
    tokenizer = mixture.tokenizer
    if tokenizer is None:
        return []
    asked = [pair for domain in mixture.domains for pair in _asked(domain, number, context)]
    # Of about one length together.
    order = sorted(range(len(asked)), key=lambda place: len(asked[place][0]))
    found: dict[int, Answer] = {}
    for start in range(0, len(order), _AT_ONCE):
        places = order[start : start + _AT_ONCE]
        prompts, replies = zip(*(asked[place] for place in places), strict=True)
        written = generate(
            network,
            prompts,
            max(map(len, replies)) + _MORE,
            ends=tokenizer.end_ids,
            absent=tokenizer.absent_ids(network.config.vocab_size),
        )
        for place, prompt, reply, new in zip(places, prompts, replies, written, strict=True):
            found[place] = _compared(tokenizer, prompt, reply, new)
    return [found[place] for place in range(len(asked))]


def _asked(domain: Domain, number: int, context: int) -> list[tuple[list[int], list[int]]]:
    """Conversations of a domain up to their last reply, and that reply."""
    held_out, counted = domain.held_out, domain.held_out_counted
    if held_out is None or counted is None:
        return []
    found = []
    fitting = np.flatnonzero(held_out.lengths <= context)
    for index in fitting[np.linspace(0, len(fitting) - 1, min(number, len(fitting)), dtype=int)]:
        ids, counts = held_out.document(index), counted.document(index)
        end = int(np.flatnonzero(counts)[-1]) + 1
        # Behind the last token before it that does not count; where none is there is no question.
        before = np.flatnonzero(counts[:end] == 0)
        if before.size:
            begin = int(before[-1]) + 1
            found.append((ids[:begin].tolist(), ids[begin:end].tolist()))
    return found


def _compared(
    tokenizer: Tokenizer, prompt: Sequence[int], reply: Sequence[int], new: Sequence[int]
) -> Answer:
    ends = tokenizer.end_ids
    has_end = reply[-1] in ends
    # A reply without an end goes on for ever, and is as long as the other.
    written = list(new) if has_end else list(new)[: len(reply)]

    def said(ids: Sequence[int]) -> str:
        # A mark within an answer is one word more.
        own = ids[:-1] if ids and ids[-1] in ends else ids
        return tokenizer.decode(own, skip_special_tokens=False).strip()

    text, expected = said(written), said(reply)
    is_over = not has_end or written[-1] in ends
    return Answer(
        prompt=tokenizer.decode(list(prompt), skip_special_tokens=False),
        text=text,
        expected=expected,
        is_exact=is_over and text == expected,
    )
