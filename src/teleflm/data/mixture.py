"""Which token files a run reads, and how often each."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from teleflm.data.chat_parts import COUNTED_SUFFIX
from teleflm.data.chat_template import find_template
from teleflm.data.domains import HELD_OUT_SUFFIX
from teleflm.data.indexed import IndexedTokens
from teleflm.data.packed import Packed
from teleflm.data.store import CHAT, TokenStore
from teleflm.data.text_bytes import read_text_bytes
from teleflm.data.tokenizer import Tokenizer
from teleflm.errors import DataError


@dataclass(frozen=True)
class Domain:
    """One domain of a mixture. Weights are relative; a weight of 0 is only evaluated.

    `bytes` are the training part's, as UTF-8 text; None for a Megatron prefix, which knows none.
    `held_out_bytes` are those of each held-out document, where a file keeps them. Of a chat store
    `counted` and `held_out_counted` say, with 1 or 0 for each token, which are to be predicted, and
    a document is a conversation.
    """

    name: str
    weight: float
    train: IndexedTokens
    held_out: IndexedTokens | None
    bytes: int | None = None
    held_out_bytes: npt.NDArray[np.int64] | None = None
    counted: IndexedTokens | None = None
    held_out_counted: IndexedTokens | None = None

    @property
    def is_chat(self) -> bool:
        """Whether its documents are conversations."""
        return self.counted is not None

    @property
    def is_tuned_on(self) -> bool:
        """Whether they are conversations, and not only evaluated."""
        return self.is_chat and self.weight > 0


@dataclass(frozen=True)
class Mixture:
    """The domains of a run, and their common tokenizer and vocabulary where these are known."""

    domains: list[Domain]
    tokenizer: Tokenizer | None
    vocab_size: int | None

    @property
    def trains_on_chats(self) -> bool:
        """Whether some of what it trains on are conversations."""
        return any(domain.is_tuned_on for domain in self.domains)


class ReadEpochs(Protocol):
    """A source, and how often it is read once through while the others are as often as they say."""

    @property
    def path(self) -> str:
        """A token store, or a Megatron prefix."""

    @property
    def epochs(self) -> float:
        """0 or more; at 0 it is only evaluated."""


Paths = str | Path | Mapping[str, tuple[str, float]] | Mapping[str, ReadEpochs]
"""What RUN.yaml has under `data.path`."""


def tokens_once(domain: Domain, sequence_length: int | None) -> int:
    """Tokens that a run reads of a domain to have read it once: of conversations all positions of
    the rows that they fill, where the length of these is known."""
    if domain.counted is None or sequence_length is None:
        return domain.train.tokens.size
    # Where none fits into a row, the run says so, and not that the domain weighs nothing.
    rows = max(Packed(domain.train, domain.counted, sequence_length).count, 1)
    return rows * sequence_length


def open_domains(
    path: Paths, tokenizer: str | Path | None = None, sequence_length: int | None = None
) -> Mixture:
    """Open the data of a run.

    `path` is a token store, whose domains are then weighted by their tokens, or a mapping of
    domains to (source, weight), or to sources with epochs, whose weights are tokens × epochs: a run
    of as many tokens as these come to together reads each source that often. Tokens are those by
    `tokens_once`, for rows of `sequence_length`. A source is a token store with that domain (or
    with only one), or a Megatron prefix: `x` for x.bin and x.idx, with x.held-out beside it where
    it exists.
    `tokenizer` is a tokenizer folder, for prefixes, which come without one.

    Raises DataError for sources that cannot be opened, weights or epochs that are not finite or
    negative or all 0, and parts that were made with different tokenizers or
    chat templates.
    """
    explicit = Tokenizer.load(Path(tokenizer)) if tokenizer is not None else None
    stores: list[TokenStore] = []
    if isinstance(path, Mapping):
        domains = [
            _open_source(name, source, stores, sequence_length) for name, source in path.items()
        ]
    else:
        store = TokenStore(Path(path))
        stores.append(store)
        domains = [
            _read_often(_of_store(store, name, name, 0.0), 1.0, sequence_length)
            for name in store.domains
        ]
    if not any(domain.weight for domain in domains):
        raise DataError("data.path: no domain has a weight or epochs above 0")
    common = _common_tokenizer(stores, explicit)
    return Mixture(domains, common, common.vocab_size if common else None)


def _open_source(
    name: str,
    source: tuple[str, float] | ReadEpochs,
    stores: list[TokenStore],
    sequence_length: int | None,
) -> Domain:
    if isinstance(source, tuple):
        place, weight = source
        _check_amount(name, "a weight", weight)
        return _open_place(name, place, weight, stores)
    _check_amount(name, "epochs", source.epochs)
    domain = _open_place(name, source.path, 0.0, stores)
    return _read_often(domain, source.epochs, sequence_length)


def _read_often(domain: Domain, epochs: float, sequence_length: int | None) -> Domain:
    return replace(domain, weight=tokens_once(domain, sequence_length) * epochs)


def _check_amount(name: str, what: str, amount: float) -> None:
    if not math.isfinite(amount) or amount < 0:
        raise DataError(f"data.path.{name}: {what} of {amount} is not a number of 0 or more")


def _open_place(name: str, source: str, weight: float, stores: list[TokenStore]) -> Domain:
    path = Path(source)
    if not path.is_dir():
        if not path.with_name(f"{path.name}.idx").exists():
            raise DataError(
                f"data.path.{name}: {source} is neither a token store nor the prefix of a .bin "
                "and .idx pair"
            )
        if path.with_name(f"{path.name}{COUNTED_SUFFIX}.idx").exists():
            raise DataError(
                f"data.path.{name}: {source} holds conversations, of which replies alone count; "
                f"name their store, {path.parent}"
            )
        beside = path.with_name(path.name + HELD_OUT_SUFFIX)
        if not beside.with_name(f"{beside.name}.idx").exists():
            return Domain(name, weight, IndexedTokens(path), None)
        held_out = IndexedTokens(beside)
        sizes = read_text_bytes(beside, held_out)
        return Domain(name, weight, IndexedTokens(path), held_out, None, sizes)
    store = TokenStore(path)
    stores.append(store)
    inner = name if name in store.domains or len(store.domains) != 1 else next(iter(store.domains))
    return _of_store(store, inner, name, weight)


def _of_store(store: TokenStore, inner: str, name: str, weight: float) -> Domain:
    """The store's domain `inner`, in the mixture as `name`."""
    counts = store.domains.get(inner)
    train, held_out = store.train(inner), store.held_out(inner)
    sizes = read_text_bytes(store.path / f"{inner}{HELD_OUT_SUFFIX}", held_out)
    return Domain(
        name,
        weight,
        train,
        held_out,
        counts.bytes if counts else None,
        sizes,
        store.counted(inner),
        store.held_out_counted(inner),
    )


def _common_tokenizer(stores: Sequence[TokenStore], explicit: Tokenizer | None) -> Tokenizer | None:
    chats = [store for store in stores if store.kind == CHAT]
    tokenizer = explicit or (stores[0].tokenizer if stores else None)
    for store in stores:
        if tokenizer is not None and store.fingerprint != tokenizer.fingerprint:
            other = "the tokenizer given" if explicit else str(stores[0].path)
            raise DataError(
                f"{store.path} was made with another tokenizer than {other}; prepare it again with "
                "the same one"
            )
    for store in chats:
        if find_template(store.path) != find_template(chats[0].path):
            raise DataError(
                f"{store.path} was made with another chat template than {chats[0].path}; prepare "
                "it again with the same one"
            )
    # Of one definition all; and the template lies with this one.
    return chats[0].tokenizer if chats else tokenizer
