"""Text out of tokens as they come: never half a character, never the beginning of a stop string."""

from collections.abc import Sequence

from teleflm.data.tokenizer import Tokenizer

# What the tokenizer's library has for bytes that are no character, or not yet.
_UNFINISHED = "\ufffd"
# Tokens that are decoded again with each new one: what a token's text depends on is nearer.
_BEFORE = 16


class TextStream:
    """The text of tokens behind a prompt, up to the first of some stop strings.

    All pieces together are `Tokenizer.decode_after` of all tokens, cut where a stop string begins.

    Attributes:
        text: what is certain so far.
        is_stopped: whether a stop string has come.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int], stops: Sequence[str]) -> None:
        self.text, self.is_stopped = "", False
        self._tokenizer, self._stops = tokenizer, stops
        # Known to end with a character: all of them, and those of them that are not decoded again.
        self._tokens, self._read = list(prompt), len(prompt)
        self._first, self._next = 0, len(prompt)
        # Decoded, but maybe the beginning of a stop string.
        self._held = ""

    def push(self, token: int) -> str:
        """The text that has become certain by one more token."""
        self._tokens.append(token)
        text = self._undecoded()
        return "" if text.endswith(_UNFINISHED) else self._take(text)

    def finish(self) -> str:
        """What was held back, after the last token."""
        rest = "" if self.is_stopped else self._take(self._undecoded()) + self._held
        self.text += self._held
        self._held = ""
        return rest

    def _undecoded(self) -> str:
        before = self._tokenizer.decode(self._tokens[self._first : self._read])
        return self._tokenizer.decode(self._tokens[self._first :])[len(before) :]

    def _take(self, text: str) -> str:
        """Count decoded text as read; what of it and of what was held back is certain."""
        self._read = len(self._tokens)
        if self._read - self._next > _BEFORE:
            self._first, self._next = self._next, self._read
        self._held += text
        at = min((at for at in map(self._held.find, self._stops) if at >= 0), default=None)
        if at is not None:
            self.is_stopped = True
            certain, self._held = self._held[:at], ""
        else:
            certain = self._held[: len(self._held) - self._may_stop()]
            self._held = self._held[len(certain) :]
        self.text += certain
        return certain

    def _may_stop(self) -> int:
        """Characters at the end of what is held that a stop string begins with, the most of all."""
        longest = max(map(len, self._stops), default=1) - 1
        sizes = range(min(longest, len(self._held)), 0, -1)
        return next((n for n in sizes if self._ends_as_a_stop_begins(n)), 0)

    def _ends_as_a_stop_begins(self, size: int) -> bool:
        return any(stop.startswith(self._held[-size:]) for stop in self._stops)
