"""What is evaluated on: documents as tokens, with the bytes of text that each token stands for."""

from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from teleflm.data.chat_tokenizer import goes_on_from
from teleflm.data.domains import HELD_OUT_SUFFIX
from teleflm.data.find import Corpus, find_corpus
from teleflm.data.indexed import IndexedTokens
from teleflm.data.sources import Reading, iterate_documents
from teleflm.data.store import CHAT, STORE_FILE, TokenStore
from teleflm.data.text_bytes import read_text_bytes
from teleflm.data.tokenizer import Tokenizer
from teleflm.data.unpack import Progress
from teleflm.errors import DataError

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


class Piece(NamedTuple):
    """A document of a domain: token ids (n,), and bytes of text that each stands for, (n,).

    It begins with what the tokenizer puts before a text and ends with its end of text, both of no
    bytes, as in a token store. Of a conversation `counted` says which tokens are of replies, (n,).
    """

    domain: str
    tokens: IntArray
    sizes: FloatArray
    counted: npt.NDArray[np.bool_] | None = None


class Text(Protocol):
    """Text to evaluate on."""

    @property
    def tokenizer(self) -> Tokenizer:
        """That its tokens are of."""

    @property
    def bytes(self) -> int:
        """How much `pieces` goes through, for its progress: a store's text, or whole files."""

    @property
    def is_chat(self) -> bool:
        """Whether its documents are conversations."""

    def pieces(self, progress: Progress, enough: Container[str] = ()) -> Iterator[Piece]:
        """All documents, in a fixed order, but for those of domains of which there is `enough` by
        then; memory holds one. Raises DataError."""


def open_text(path: Path, tokenizer: Tokenizer | None, whole: bool, reading: Reading) -> Text:
    """A token store or text files.

    Args:
        path: the folder of a store, a file, or a folder with text; what `data prepare` reads.
        tokenizer: the model's; text needs it, and a store must have the same, but for tokens that
            a chat template named.
        whole: a store's training part too, not the held-out part alone.
        reading: how documents are read out of records.

    Raises:
        DataError: nothing there that can be read, or a store of another tokenizer.
    """
    if (path / STORE_FILE).is_file():
        store = TokenStore(path)
        if tokenizer is not None and not _reads_alike(tokenizer, store):
            raise DataError(
                f"{path}: made with another tokenizer than the model's; give the text itself, or a "
                "store that was prepared with the model's tokenizer"
            )
        return (_StoreChats if store.kind == CHAT else _StoreText)(store, whole)
    corpus = find_corpus([path])
    if whole:
        raise DataError(f"{path}: no token store, so nothing is held out of it; leave out --all")
    if tokenizer is None:
        raise DataError(
            f"{path}: text, and no tokenizer with the model; put the tokenizer.json that it was "
            "trained with into its folder, or give a token store"
        )
    return _FileText(corpus, tokenizer, reading)


def _reads_alike(tokenizer: Tokenizer, store: TokenStore) -> bool:
    """Whether both have the same tokens for all text: as before and behind a chat template's names
    for tokens that waited."""
    return (
        tokenizer.fingerprint == store.fingerprint
        or goes_on_from(store.tokenizer, tokenizer)
        or goes_on_from(tokenizer, store.tokenizer)
    )


@dataclass(frozen=True)
class _FileText:
    corpus: Corpus
    tokenizer: Tokenizer
    reading: Reading
    is_chat = False

    @property
    def bytes(self) -> int:
        return self.corpus.bytes

    def pieces(self, progress: Progress, enough: Container[str] = ()) -> Iterator[Piece]:
        tokenizer = self.tokenizer
        end = [] if tokenizer.eos_id is None else [tokenizer.eos_id]
        for document in iterate_documents(self.corpus, self.reading, progress=progress):
            if document.domain in enough:
                continue
            ids = tokenizer.encode(document.text)
            tokens = np.array([*tokenizer.opening, *ids, *end], np.int64)
            text = slice(len(tokenizer.opening), len(tokenizer.opening) + len(ids))
            size = len(document.text.encode())
            yield Piece(document.domain, tokens, _sizes(tokenizer, tokens, text, size))


@dataclass(frozen=True)
class _Stored:
    store: TokenStore
    whole: bool

    @property
    def tokenizer(self) -> Tokenizer:
        return self.store.tokenizer


class _StoreText(_Stored):
    is_chat = False

    @property
    def bytes(self) -> int:
        return sum(round(sizes.sum()) for _, _, sizes in self._parts())

    def pieces(self, progress: Progress, enough: Container[str] = ()) -> Iterator[Piece]:
        tokenizer = self.tokenizer
        for domain, part, sizes in self._parts():
            left = round(sizes.sum())
            for index in range(len(part)):
                if domain in enough:
                    break
                tokens = part.document(index).astype(np.int64)
                text = slice(len(tokenizer.opening), len(tokens) - 1)
                yield Piece(domain, tokens, _sizes(tokenizer, tokens, text, float(sizes[index])))
                progress(int(sizes[index]))
                left -= int(sizes[index])
            if left:
                progress(left)

    def _parts(self) -> Iterator[tuple[str, IndexedTokens, npt.NDArray[np.number]]]:
        """Domains with a part each, and the bytes of its documents."""
        for name, counts in self.store.domains.items():
            if self.whole:
                train = self.store.train(name)
                # Nobody wrote down those of each document: all have the same a token.
                yield name, train, counts.bytes * train.lengths / train.tokens.size
            held_out = self.store.held_out(name)
            known = read_text_bytes(self.store.path / f"{name}{HELD_OUT_SUFFIX}", held_out)
            even = counts.held_out_bytes * held_out.lengths / held_out.tokens.size
            yield name, held_out, even if known is None else known


class _StoreChats(_Stored):
    is_chat = True

    @property
    def bytes(self) -> int:
        return sum(size for *_, size in self._parts())

    def pieces(self, progress: Progress, enough: Container[str] = ()) -> Iterator[Piece]:
        lengths = self.tokenizer.byte_lengths
        for domain, part, counted, size in self._parts():
            read = 0
            for index in range(len(part)):
                if domain in enough:
                    break
                tokens = part.document(index).astype(np.int64)
                # Of a conversation nobody knows the bytes of what counts by itself.
                sizes = np.zeros(len(tokens)) if lengths is None else lengths[tokens].astype(float)
                yield Piece(domain, tokens, sizes, counted.document(index).astype(bool))
                until = size * int(part.offsets[index + 1]) // part.tokens.size
                progress(until - read)
                read = until
            progress(size - read)

    def _parts(self) -> Iterator[tuple[str, IndexedTokens, IndexedTokens, int]]:
        """Domains with the tokens of a part, whether they count, and the bytes of its text."""
        store = self.store
        for name, counts in store.domains.items():
            train = (store.train(name), store.counted(name), counts.bytes)
            held_out = (store.held_out(name), store.held_out_counted(name), counts.held_out_bytes)
            for part, counted, size in (train, held_out) if self.whole else (held_out,):
                assert counted is not None, "a chat store has them"
                yield name, part, counted, size


def _sizes(tokenizer: Tokenizer, tokens: IntArray, text: slice, size: float) -> FloatArray:
    """Bytes of each token of a document of `size` bytes whose own tokens are those of `text`: what
    it is in itself, or where that is not known an equal share."""
    lengths = tokenizer.byte_lengths
    if lengths is not None:
        return lengths[tokens].astype(np.float64)
    sizes = np.zeros(len(tokens))
    own = sizes[text]
    own[:] = size / len(own) if len(own) else 0.0
    return sizes
