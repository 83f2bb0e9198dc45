"""A conversation as tokens: one way for training, for chats and for evaluation."""

import functools
from bisect import bisect_left, bisect_right
from pathlib import Path
from typing import NamedTuple

from teleflm.data.chat_template import ChatTemplate, Messages, Span
from teleflm.data.marks import Marks, Placed
from teleflm.data.tokenizer import Tokenizer
from teleflm.errors import DataError

# The shortest conversation, which shows what ends a reply.
PROBE = ({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"})


class Encoded(NamedTuple):
    """A conversation.

    Attributes:
        ids: its tokens.
        counted: whether each is to be predicted: those of the assistant's replies, and what ends
            them.
        bytes: UTF-8 bytes of the text that they write.
        cut: replies that begin within a token, of which a prompt has another form.
    """

    ids: list[int]
    counted: list[bool]
    bytes: int
    cut: int


class Conversations:
    """Writes conversations as tokens, by the template in a tokenizer's folder.

    They are what `apply_chat_template` of transformers makes of them, but for special strings that
    somebody wrote: only the template's own are special tokens.

    Args:
        folder: the tokenizer's.
        tokenizer: the same, loaded.
        name: what errors call the template; without one the folder.

    Raises:
        DataError: there is no template.
        MissingExtraError: transformers, which renders templates, is not installed.
    """

    def __init__(self, folder: Path, tokenizer: Tokenizer, name: str | None = None) -> None:
        self.template = ChatTemplate(folder, name)
        self._tokenizer, self._marks = tokenizer, Marks(tokenizer)

    def encode(self, messages: Messages) -> Encoded:
        """A conversation that is over, and which of its tokens are to be learnt.

        A token with any part in a reply is counted, and the reply ends with the token that ends it:
        white space that the template puts behind that is not counted.

        Raises:
            DataError: the template fails, or the replies cannot be found; content that `Marks.hide`
                refuses, or with a lone surrogate.
        """
        behind = frozenset() if self.stop is None else frozenset({self.stop})
        return self._encoded(messages, self._tokenizer.special_ids | behind, behind)

    def _encoded(self, messages: Messages, ends: frozenset[int], behind: frozenset[int]) -> Encoded:
        """Replies end with one of `ends`; those `behind` may stand behind what the template marks
        as a reply."""
        text, spans = self.template.replies(self._hidden(messages))
        replies = sum(message["role"] == "assistant" for message in messages)
        if len(spans) != replies or any(start >= end for start, end in spans):
            raise DataError(
                f"{self.template.name}: its chat template shows {len(spans)} replies of {replies}, "
                "or an empty one; mend it"
            )
        placed = self._marks.encode(text)
        counted, cut = [False] * len(placed.ids), 0
        for span in spans:
            first, last = _tokens_of(span, placed)
            if first >= last:
                raise DataError("a reply has no token of its own; remove it")
            end = _ending(text, placed, first, last, ends)
            if end is None:
                follows = self.template.marks_replies and placed.ids[last : last + 1]
                end = last + 1 if follows and follows[0] in behind else last
            counted[first:end] = [True] * (end - first)
            cut += placed.starts[first] < span[0]
        return Encoded(placed.ids, counted, len(self._marks.show(text).encode()), cut)

    def prompt(self, messages: Messages) -> list[int]:
        """The tokens behind which the assistant's next reply begins. Raises DataError as
        `encode`."""
        return self.ids(self.prompt_text(messages))

    def prompt_text(self, messages: Messages, answers_next: bool = True) -> str:
        """What `ids` takes: the text of `prompt`, in which special strings that somebody wrote are
        hidden; or with the last message as the beginning of a reply that goes on. Raises DataError
        as `encode`."""
        hidden = self._hidden(messages)
        return self.template.prompt(hidden) if answers_next else self.template.begun(hidden)

    def hidden(self, text: str) -> str:
        """What somebody wrote, for `ids`: none of its special strings is one. Raises DataError as
        `Marks.hide`."""
        return self._marks.hide(text)

    def ids(self, text: str) -> list[int]:
        """The tokens of a text by `prompt_text`, perhaps with one by `hidden` behind it."""
        return self._marks.encode(text).ids

    def _hidden(self, messages: Messages) -> list[dict[str, str]]:
        return [{**message, "content": self.hidden(message["content"])} for message in messages]

    @functools.cached_property
    def stop(self) -> int | None:
        """The token that ends a reply, None where the template writes none. Raises DataError as
        `encode`."""
        # In a reply of one letter that is any token with a name of its own.
        probe = self._encoded(PROBE, self._tokenizer.added_ids, self._tokenizer.added_ids)
        last = probe.ids[max(token for token, counts in enumerate(probe.counted) if counts)]
        return last if last in self._tokenizer.added_ids else None


def _ending(text: str, placed: Placed, first: int, last: int, ends: frozenset[int]) -> int | None:
    """The token behind the one of `ends` with which the tokens first … last - 1 end, but for white
    space; None where they end with another one."""
    for token in range(last - 1, first - 1, -1):
        if placed.ids[token] in ends:
            return token + 1
        if text[placed.starts[token] : placed.ends[token]].strip():
            break
    return None


def _tokens_of(span: Span, placed: Placed) -> tuple[int, int]:
    """The tokens of which some part is in `span`: the first, and the one behind the last."""
    start, end = span
    return bisect_right(placed.ends, start), bisect_left(placed.starts, end)
