"""Windows of documents: what the model reads at once, and which of its predictions count."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from teleflm.data.packed import end_within
from teleflm.evaluation.text import FloatArray, IntArray, Piece

Windowing = Literal["disjoint", "rolling"]


class Window(NamedTuple):
    """Tokens to read at once, of one domain.

    Attributes:
        tokens: ids (n + 1,); n predictions.
        first: the first prediction that counts; those before it only give it context.
        sizes: bytes of text that the targets stand for, (n,).
        starts: where documents do not see each other, the place at which that of each token begins,
            (n + 1,).
        replied: of a conversation which targets are of replies, (n,); they alone count.
    """

    domain: str
    tokens: IntArray
    first: int
    sizes: FloatArray
    starts: IntArray | None = None
    replied: npt.NDArray[np.bool_] | None = None

    @property
    def counted(self) -> npt.NDArray[np.bool_]:
        """Which predictions count, (n,): none of a token that it would take another document to
        predict."""
        if self.replied is not None:
            return self.replied
        places = np.arange(len(self.sizes))
        counted = places >= self.first
        return counted if self.starts is None else counted & (self.starts[1:] <= places)


class Windower(Protocol):
    """Cuts documents of one domain, which come one by one."""

    def add(self, piece: Piece) -> Iterator[Window]:
        """What can be cut now that this document is there."""

    def end(self) -> Iterator[Window]:
        """What is left when there are no more."""


class Disjoint:
    """The documents laid end to end, as training reads them and evaluates: windows follow on one
    another, and the very first token is not predicted; with a document mask that of no document."""

    def __init__(self, length: int, document_mask: bool = False) -> None:
        self._length, self._masks = length, document_mask
        self._left: Piece | None = None
        self._begins = np.zeros(0, np.bool_)

    def add(self, piece: Piece) -> Iterator[Window]:
        self._begins = np.append(self._begins, np.arange(len(piece.tokens)) == 0)
        if self._left is not None:
            piece = Piece(
                piece.domain,
                np.concatenate([self._left.tokens, piece.tokens]),
                np.concatenate([self._left.sizes, piece.sizes]),
            )
        start, length = 0, self._length
        while len(piece.tokens) - start > length:
            yield self._window(piece, start, start + length)
            start += length
        self._left = Piece(piece.domain, piece.tokens[start:], piece.sizes[start:])
        self._begins = self._begins[start:]

    def end(self) -> Iterator[Window]:
        if self._left is not None and len(self._left.tokens) > 1:
            yield self._window(self._left, 0, len(self._left.tokens) - 1)

    def _window(self, piece: Piece, start: int, end: int) -> Window:
        tokens, sizes = piece.tokens[start : end + 1], piece.sizes[start + 1 : end + 1]
        if not self._masks:
            return Window(piece.domain, tokens, 0, sizes)
        begins = np.where(self._begins[start : end + 1], np.arange(len(tokens)), 0)
        return Window(piece.domain, tokens, 0, sizes, np.maximum.accumulate(begins))


class Rolling:
    """Each document by itself behind `prefix`, its end not predicted: the way of lm-eval.

    Its last window is filled from the left, with tokens that the one before has predicted.
    """

    def __init__(self, length: int, prefix: int, end: int | None) -> None:
        self._length, self._prefix, self._end = length, prefix, end

    def add(self, piece: Piece) -> Iterator[Window]:
        stop = len(piece.tokens) - int(piece.tokens[-1] == self._end)
        tokens = np.concatenate([[self._prefix], piece.tokens[:stop]])
        for start in range(0, stop, self._length):
            end = min(start + self._length, stop)
            begin = max(0, end - self._length)
            yield Window(
                piece.domain, tokens[begin : end + 1], start - begin, piece.sizes[begin:end]
            )

    def end(self) -> Iterator[Window]:
        yield from ()


@dataclass
class ChatsRead:
    """How many conversations were read, and how many of them were cut and left out."""

    read: int = 0
    cut: int = 0
    left_out: int = 0


class Chats:
    """Conversations, each by itself, as a model that is tuned on them reads them: one that is
    longer than a window is cut behind the last reply that fits, and left out where none does.

    `count` takes them as they are read.
    """

    def __init__(self, length: int, count: ChatsRead) -> None:
        self._most, self._count = length + 1, count

    def add(self, piece: Piece) -> Iterator[Window]:
        assert piece.counted is not None, "of a conversation it is known"
        end = len(piece.tokens)
        if is_long := end > self._most:
            end = end_within(piece.counted, self._most)
        if end:
            tokens, sizes = piece.tokens[:end], piece.sizes[1:end]
            yield Window(piece.domain, tokens, 0, sizes, replied=piece.counted[1:end])
        # Not reached where the window was one too many.
        self._count.read += 1
        self._count.cut += is_long and end > 0
        self._count.left_out += not end

    def end(self) -> Iterator[Window]:
        yield from ()
