"""Which token files a run reads, and how often each."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from teleflm.data.domains import HELD_OUT_SUFFIX
from teleflm.data.indexed import IndexedTokens
from teleflm.data.store import TokenStore
from teleflm.data.tokenizer import Tokenizer
from teleflm.errors import DataError


@dataclass(frozen=True)
class Domain:
    """One domain of a mixture. Weights are relative; a weight of 0 is only evaluated.

    `bytes` are the training part's, as UTF-8 text; None for a Megatron prefix, which knows none.
    """

    name: str
    weight: float
    train: IndexedTokens
    held_out: IndexedTokens | None
    bytes: int | None = None


@dataclass(frozen=True)
class Mixture:
    """The domains of a run, and their common tokenizer and vocabulary where these are known."""

    domains: list[Domain]
    tokenizer: Tokenizer | None
    vocab_size: int | None


def open_domains(
    path: str | Path | Mapping[str, tuple[str, float]], tokenizer: str | Path | None = None
) -> Mixture:
    """Open the data of a run.

    `path` is a token store, whose domains are then weighted by their tokens, or
    {domain: (source, weight)} where a source is a token store with that domain (or with only one),
    or a Megatron prefix: `x` for x.bin and x.idx, with x.held-out beside it where it exists.
    `tokenizer` is a tokenizer folder, for prefixes, which come without one.

    Raises DataError for sources that cannot be opened, weights that are not finite or negative or
    all 0, and parts that were made with different tokenizers.
    """
    explicit = Tokenizer.load(Path(tokenizer)) if tokenizer is not None else None
    stores: list[TokenStore] = []
    if isinstance(path, Mapping):
        domains = [
            _open_source(name, source, weight, stores) for name, (source, weight) in path.items()
        ]
    else:
        store = TokenStore(Path(path))
        stores.append(store)
        domains = [
            _of_store(store, name, name, float(counts.tokens))
            for name, counts in store.domains.items()
        ]
    if not any(domain.weight for domain in domains):
        raise DataError("data.path: no domain has a weight above 0")
    common = _common_tokenizer(stores, explicit)
    return Mixture(domains, common, common.vocab_size if common else None)


def _open_source(name: str, source: str, weight: float, stores: list[TokenStore]) -> Domain:
    if not math.isfinite(weight) or weight < 0:
        raise DataError(f"data.path.{name}: a weight of {weight} is not a number of 0 or more")
    path = Path(source)
    if not path.is_dir():
        if not path.with_name(f"{path.name}.idx").exists():
            raise DataError(
                f"data.path.{name}: {source} is neither a token store nor the prefix of a .bin "
                "and .idx pair"
            )
        held_out = path.with_name(path.name + HELD_OUT_SUFFIX)
        exists = held_out.with_name(f"{held_out.name}.idx").exists()
        return Domain(
            name, weight, IndexedTokens(path), IndexedTokens(held_out) if exists else None
        )
    store = TokenStore(path)
    stores.append(store)
    inner = name if name in store.domains or len(store.domains) != 1 else next(iter(store.domains))
    return _of_store(store, inner, name, weight)


def _of_store(store: TokenStore, inner: str, name: str, weight: float) -> Domain:
    """The store's domain `inner`, in the mixture as `name`."""
    counts = store.domains.get(inner)
    return Domain(
        name, weight, store.train(inner), store.held_out(inner), counts.bytes if counts else None
    )


def _common_tokenizer(stores: Sequence[TokenStore], explicit: Tokenizer | None) -> Tokenizer | None:
    tokenizer = explicit or (stores[0].tokenizer if stores else None)
    for store in stores:
        if tokenizer is not None and store.fingerprint != tokenizer.fingerprint:
            other = "the tokenizer given" if explicit else str(stores[0].path)
            raise DataError(
                f"{store.path} was made with another tokenizer than {other}; prepare it again with "
                "the same one"
            )
    return tokenizer
