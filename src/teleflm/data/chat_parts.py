"""A domain's conversations dealt to its two parts, with what of them is to be learnt."""

import hashlib
from array import array
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from teleflm.data.domains import HELD_OUT_SUFFIX
from teleflm.data.indexed import IndexedWriter
from teleflm.data.parts import DomainCounts, is_held_out

COUNTED_SUFFIX = ".counted"


@dataclass
class ChatCounts(DomainCounts):
    """What a domain of a chat store holds: a document is a conversation, and `counted_tokens` are
    those that are to be predicted."""

    counted_tokens: int = 0
    held_out_counted_tokens: int = 0


@dataclass(frozen=True)
class ConversationTokens:
    """A conversation: its tokens and whether each counts, both (n,), and the bytes of its text."""

    tokens: npt.NDArray[np.integer]
    counted: npt.NDArray[np.uint8]
    bytes: int


class _Part:
    """Tokens, and beside them a file with 1 for each that counts, else 0."""

    def __init__(self, prefix: Path, dtype: npt.DTypeLike) -> None:
        beside = prefix.with_name(prefix.name + COUNTED_SUFFIX)
        self.files = IndexedWriter(prefix, dtype), IndexedWriter(beside, np.uint8)

    def add(self, row: ConversationTokens) -> None:
        for file, values in zip(self.files, (row.tokens, row.counted), strict=True):
            file.add(values)


def kept_and_trained(writers: Collection["ChatWriter"]) -> int:
    """How many held-out conversations stand word for word in some training part too."""
    trained, kept = (
        np.concatenate([np.array(getattr(writer, part)) for writer in writers])
        for part in ("trained", "kept")
    )
    return int(np.isin(kept, trained).sum())


class ChatWriter:
    """Deals the conversations of one domain to its training and its held-out files.

    About the share `share` of them, spread evenly, is held out, and one at least.
    """

    def __init__(self, folder: Path, domain: str, dtype: npt.DTypeLike, share: float) -> None:
        self.trained, self.kept = array("Q"), array("Q")
        """Digests of the conversations in either part; see `kept_and_trained`."""
        self._share, self._number = share, 0
        self._waiting: ConversationTokens | None = None
        self._train = _Part(folder / domain, dtype)
        self._held_out = _Part(folder / f"{domain}{HELD_OUT_SUFFIX}", dtype)
        self.counts = ChatCounts()

    def add(self, row: ConversationTokens) -> None:
        """Take the next conversation of the domain."""
        # One always waits, so that `close` can give the last one to a part that has none.
        if self._waiting is not None:
            self._deal(self._waiting, is_held_out(self._number, self._share))
        self._waiting = row
        self._number += 1

    def _deal(self, row: ConversationTokens, held_out: bool) -> None:
        counts, counted = self.counts, int(row.counted.sum())
        digest = hashlib.blake2b(row.tokens.tobytes(), digest_size=8).digest()
        (self.kept if held_out else self.trained).frombytes(digest)
        if held_out:
            self._held_out.add(row)
            counts.held_out_documents += 1
            counts.held_out_tokens += row.tokens.size
            counts.held_out_bytes += row.bytes
            counts.held_out_counted_tokens += counted
        else:
            self._train.add(row)
            counts.documents += 1
            counts.tokens += row.tokens.size
            counts.bytes += row.bytes
            counts.counted_tokens += counted

    def close(self) -> bool:
        """Finish the files; False, and no files, where the domain is a single conversation."""
        assert self._waiting is not None
        if self._number == 1:
            self.discard()
            return False
        counts = self.counts
        missing = not counts.held_out_documents
        due = is_held_out(self._number, self._share)
        self._deal(self._waiting, missing or (counts.documents > 0 and due))
        for file in self._files:
            file.close()
        return True

    def discard(self) -> None:
        """Give up: remove what was written so far."""
        for file in self._files:
            file.discard()

    @property
    def _files(self) -> list[IndexedWriter]:
        return [*self._train.files, *self._held_out.files]
