"""A domain's text dealt to its two parts, one to train on and one held out for evaluation."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from teleflm.data.domains import HELD_OUT_SUFFIX
from teleflm.data.indexed import IndexedWriter
from teleflm.data.repeats import Repeats
from teleflm.data.text_bytes import TextBytesWriter
from teleflm.data.tokenizer import Tokenizer

GOLDEN_RATIO = (5**0.5 - 1) / 2


def is_held_out(number: int, share: float) -> bool:
    """Whether the piece of that number is held out.

    Multiples of the golden ratio modulo 1 are the most even spread there is and keep no step with a
    corpus that repeats itself, say in two languages in turn, as every 50th piece would. The size of
    a piece has no say, or short ones would be held out more often.
    """
    return (number * GOLDEN_RATIO) % 1 < share


@dataclass
class DomainCounts:
    """What a domain holds; `bytes` are UTF-8 bytes of text, `tokens` count what begins and ends a
    document too. What is there twice counts twice."""

    documents: int = 0
    tokens: int = 0
    bytes: int = 0
    held_out_documents: int = 0
    held_out_tokens: int = 0
    held_out_bytes: int = 0


class Piece(NamedTuple):
    """A document, or a part of a long one, and how often it is to be trained on."""

    text: str
    tokens: npt.NDArray[np.integer]
    ends_document: bool
    copies: int = 1


class DomainWriter:
    """Deals the pieces of one domain to its training and its held-out file.

    Only what is dealt to the training file is repeated there, once all is dealt: so what is held
    out is in neither file twice, nor in both.
    """

    def __init__(
        self,
        folder: Path,
        domain: str,
        dtype: npt.DTypeLike,
        tokenizer: Tokenizer,
        share: float,
        saved: dict[str, Any] | None = None,
    ) -> None:
        """A new writer, or with `saved` one as it was when `save` returned that (DataError).

        `tokenizer` says how a document begins and ends; it has a token for the latter. Where its
        tokens do not say how many bytes of text they stand for, the held-out part keeps that of
        each document.
        """
        self._tokenizer = tokenizer
        self._opening = np.array(tokenizer.opening, dtype)
        self._eos = np.array([tokenizer.eos_id], dtype)
        self._share = share
        self.repeated = 0
        """Copies of documents beside the first ones, known once it is closed."""
        train, held_out = folder / domain, folder / f"{domain}{HELD_OUT_SUFFIX}"
        says_bytes = tokenizer.byte_lengths is not None
        if saved is None:
            self.counts = DomainCounts()
            self._train, self._held_out = (
                IndexedWriter(prefix, dtype) for prefix in (train, held_out)
            )
            self._text_bytes = None if says_bytes else TextBytesWriter(held_out)
            self._waiting: Piece | None = None
            self._number, self._copies = 0, 1
            self._repeats = Repeats(train)
            return
        self.counts = DomainCounts(**saved["counts"])
        self._train = IndexedWriter.resume(train, dtype, saved["train"])
        self._held_out = IndexedWriter.resume(held_out, dtype, saved["held_out"])
        documents = self._held_out.documents
        self._text_bytes = None if says_bytes else TextBytesWriter(held_out, documents)
        text, tokens, ends_document, copies = saved["waiting"]
        self._waiting = Piece(text, np.array(tokens, dtype), ends_document, copies)
        self._number, self._copies = saved["number"], saved["copies"]
        self._repeats = Repeats(train, saved["repeats"])

    def save(self) -> dict[str, Any]:
        """Have all that was added on disk; what a writer that goes on takes, as JSON."""
        assert self._waiting is not None
        text, tokens, ends_document, copies = self._waiting
        if self._text_bytes is not None:
            self._text_bytes.save()
        return {
            "counts": asdict(self.counts),
            "train": self._train.save(),
            "held_out": self._held_out.save(),
            "repeats": self._repeats.save(),
            "waiting": [text, tokens.tolist(), ends_document, copies],
            "number": self._number,
            "copies": self._copies,
        }

    def add(self, piece: Piece) -> None:
        """Take the next piece of the domain."""
        # One piece always waits, so that `close` can give the last one to a part that has none.
        if self._waiting is not None:
            self._deal(self._waiting, is_held_out(self._number, self._share))
        self._waiting = piece
        self._number += 1

    def _deal(self, piece: Piece, held_out: bool) -> None:
        size = len(piece.text.encode())
        if held_out:
            self._end_document()
            tokens = np.concatenate([self._opening, piece.tokens, self._eos])
            self._held_out.add(tokens)
            self.counts.held_out_tokens += tokens.size
            self.counts.held_out_bytes += size
            if self._text_bytes is not None:
                self._text_bytes.add(size)
            return
        before, self._copies = self._train.open_tokens, piece.copies
        if before:
            self._train.extend(self._inside(piece))
        else:
            self._train.extend(self._opening)
            self._train.extend(piece.tokens)
        self.counts.tokens += (self._train.open_tokens - before) * piece.copies
        self.counts.bytes += size * piece.copies
        if piece.ends_document:
            self._end_document()

    def _inside(self, piece: Piece) -> npt.NDArray[np.integer]:
        """The tokens of a piece that goes on with a document."""
        if not self._tokenizer.marks_beginnings:
            return piece.tokens
        return np.array(self._tokenizer.encode_inside(piece.text), piece.tokens.dtype)

    def _end_document(self) -> None:
        if self._train.open_tokens:
            self._repeats.add(self._train.documents, self._copies)
            self._train.add(self._eos)
            self.counts.tokens += self._copies

    def close(self, encode: Callable[[str], Sequence[int]]) -> bool:
        """Finish both files; False, and no files, where the domain is too small to divide.

        A single piece is divided in two, which `encode` gives the tokens of.
        """
        assert self._waiting is not None
        last, self._waiting = self._waiting, None
        if self._number == 1:
            first, second = _halves(last.text, self._share)
            if not second:
                self.discard()
                return False
            dtype = last.tokens.dtype
            for text, held_out in ((first, False), (second, True)):
                tokens = np.array(encode(text), dtype)
                self._deal(Piece(text, tokens, True, last.copies), held_out)
        else:
            missing = not self.counts.held_out_bytes
            self._deal(
                last, missing or (self.counts.bytes > 0 and is_held_out(self._number, self._share))
            )
        self._end_document()
        order = self._repeats.order(self._train.documents)
        self.repeated = 0 if order is None else order.size - self._train.documents
        self.counts.documents = self._train.documents + self.repeated
        self.counts.held_out_documents = self._held_out.documents
        self._train.close(order)
        self._held_out.close()
        if self._text_bytes is not None:
            self._text_bytes.close()
        self._repeats.remove()
        return True

    def leave(self) -> None:
        """Give up, and leave what was written so far."""
        for file in self._files:
            file.leave()

    def discard(self) -> None:
        """Give up: remove what was written so far."""
        for file in self._files:
            file.discard()
        self._repeats.remove()

    @property
    def _files(self) -> list[IndexedWriter | TextBytesWriter]:
        files = [self._train, self._held_out, self._text_bytes]
        return [file for file in files if file is not None]


def _halves(text: str, share: float) -> tuple[str, str]:
    """`text` in two, the second about `share` of it, cut at a line end or else a space if it can.

    The second is empty where `text` is a single character.
    """
    whole = len(text)
    cut = min(max(round(whole * (1 - share)), 1), max(whole - 1, 1))
    for mark, behind in (("\n", 1), (" ", 0)):
        # Near the place only: what is held out must not become most of the text.
        found = text.rfind(mark, max(cut // 2, 1), cut)
        if found >= 0:
            cut = found + behind
            break
    return text[:cut], text[cut:]
