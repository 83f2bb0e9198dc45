"""The token store: a folder of token files by domain, their held-out parts, and the tokenizer."""

import functools
import json
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt

from teleflm.data.domains import HELD_OUT_SUFFIX, DomainNames
from teleflm.data.find import find_corpus
from teleflm.data.indexed import IndexedTokens, token_dtype
from teleflm.data.parts import DomainCounts, DomainWriter, Piece
from teleflm.data.pieces import cut_pieces
from teleflm.data.sources import Document, Reading, domains_ahead, iterate_documents, note
from teleflm.data.tokenizer import Tokenizer
from teleflm.data.unpack import Progress
from teleflm.errors import DataError
from teleflm.files import write_whole, written_aside

FORMAT = 1
STORE_FILE = "store.json"
# Enough for all cores at a time, little enough for memory: a token costs about 100 bytes on its
# way through the tokenizers library, and a byte may be a token.
BATCH_BYTES = 1 << 19

Batch = list[tuple[str, str, bool]]
"""Pieces as (domain, text, whether it ends its document)."""


class TokenStore:
    """A folder made by `prepare`."""

    def __init__(self, path: Path) -> None:
        """Raises DataError where `path` is no token store, or one of another format."""
        self.path = Path(path)
        file = self.path / STORE_FILE
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            version = content["format"]
            if version == FORMAT:
                self.vocab_size: int = content["vocab_size"]
                self.fingerprint: str = content["tokenizer"]
                self.domains: dict[str, DomainCounts] = {
                    name: DomainCounts(**counts) for name, counts in content["domains"].items()
                }
        except (FileNotFoundError, NotADirectoryError) as error:
            raise DataError(
                f"{path}: not a token store (no {STORE_FILE}); make one with: "
                f"teleflm data prepare --tokenizer DIR --out {path} PATH…"
            ) from error
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{file}: damaged ({error!r}); prepare the store again") from error
        if version != FORMAT:
            raise DataError(
                f"{file}: store format {version}, this version reads {FORMAT}; "
                "prepare the store again"
            )

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer the store was made with. Raises DataError if it was exchanged."""
        tokenizer = Tokenizer.load(self.path)
        if tokenizer.fingerprint != self.fingerprint:
            raise DataError(
                f"{self.path / 'tokenizer.json'}: not the tokenizer that this store was made with; "
                "prepare the store again"
            )
        return tokenizer

    def train(self, domain: str) -> IndexedTokens:
        """The training part of `domain`. Raises DataError."""
        return self._open(domain, "", self._counts(domain).tokens)

    def held_out(self, domain: str) -> IndexedTokens:
        """The held-out part of `domain`. Raises DataError."""
        return self._open(domain, HELD_OUT_SUFFIX, self._counts(domain).held_out_tokens)

    def _counts(self, domain: str) -> DomainCounts:
        if domain not in self.domains:
            raise DataError(
                f"{self.path}: no domain {domain!r}; it has {', '.join(map(repr, self.domains))}"
            )
        return self.domains[domain]

    def _open(self, domain: str, suffix: str, count: int) -> IndexedTokens:
        tokens = IndexedTokens(self.path / f"{domain}{suffix}")
        if tokens.tokens.size != count:
            raise DataError(
                f"{tokens.path}: {tokens.tokens.size} tokens where {STORE_FILE} says {count}; "
                "prepare the store again"
            )
        return tokens


def prepare(
    paths: Iterable[Path],
    tokenizer_dir: Path,
    out: Path,
    *,
    reading: Reading | None = None,
    held_out: float = 0.02,
    force: bool = False,
    progress: Progress | None = None,
) -> TokenStore:
    """Tokenize the documents under `paths` into a new token store `out`.

    Every document ends with `</s>`. About the share `held_out` of each domain, spread
    evenly over it, is kept apart for evaluation; the same input gives the same parts. Documents
    longer than 16,384 characters are cut at line ends into pieces that may be held out one by one;
    the pieces between two held-out ones stay one document.

    The store is written aside and renamed, so `out` is whole or is not there; `force` replaces an
    existing store (nothing else). Raises DataError for bad input (see `iterate_documents`), domains
    that cannot be file names or are more than 100, where that is known before the first document
    is read, and an `out` that exists; MachineError for a full disk.
    """
    if not 0 < held_out < 1:
        raise DataError(f"a held-out share of {held_out} is not between 0 and 1; try 0.02")
    tokenizer = Tokenizer.load(tokenizer_dir)
    out = Path(out).absolute()
    _check_free(out, force)
    reading = reading or Reading()
    corpus = find_corpus(paths)
    names = DomainNames()
    names.admit(domains_ahead(corpus, reading))
    documents = _admitted(iterate_documents(corpus, reading, progress=progress), names)
    with written_aside(out) as aside:
        domains = _write_domains(documents, tokenizer, aside, held_out)
        tokenizer.save(aside)
        content = {
            "format": FORMAT,
            "vocab_size": tokenizer.vocab_size,
            "tokenizer": tokenizer.fingerprint,
            "domains": {name: asdict(counts) for name, counts in domains.items()},
        }
        text = json.dumps(content, indent=2, ensure_ascii=False)
        write_whole(aside / STORE_FILE, text + "\n")
    return TokenStore(out)


def _check_free(out: Path, force: bool) -> None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / STORE_FILE).is_file():
        raise DataError(f"{out}: exists and is not a token store; choose another folder")
    if not force:
        raise DataError(f"{out}: exists already; choose another folder or use --force")


def _admitted(documents: Iterable[Document], names: DomainNames) -> Iterator[Document]:
    for document in documents:
        names.admit([document.domain])
        yield document


def _write_domains(
    documents: Iterable[Document], tokenizer: Tokenizer, folder: Path, share: float
) -> dict[str, DomainCounts]:
    dtype = token_dtype(tokenizer.vocab_size)
    writers: dict[str, DomainWriter] = {}
    try:
        for batch, tokens in _encoded(_batches(documents), tokenizer, dtype):
            for (domain, text, last), row in zip(batch, tokens, strict=True):
                if domain not in writers:
                    writers[domain] = DomainWriter(folder, domain, dtype, tokenizer.eos_id, share)
                writers[domain].add(Piece(text, row, last))
        return _close(writers, tokenizer)
    except BaseException:
        for writer in writers.values():
            writer.discard()
        raise


def _close(writers: dict[str, DomainWriter], tokenizer: Tokenizer) -> dict[str, DomainCounts]:
    """The counts of the domains that are large enough to be divided."""
    whole, small = {}, []
    for domain, writer in sorted(writers.items()):
        if writer.close(tokenizer.encode):
            whole[domain] = writer.counts
        else:
            small.append(domain)
    if not whole:
        raise DataError(
            f"domain {small[0]!r} is a single character, so nothing can be held out for "
            "evaluation; give it more text"
        )
    if small:
        note(f"left out, as a single character cannot be divided: {', '.join(small)}")
    return whole


def _encoded(
    batches: Iterable[Batch], tokenizer: Tokenizer, dtype: npt.DTypeLike
) -> Iterator[tuple[Batch, list[npt.NDArray[np.integer]]]]:
    """Each batch with its tokens, while the next one is already with the tokenizer.

    The tokenizer works without Python's lock, so reading and writing cost it no time.
    """

    def encode(batch: Batch) -> list[npt.NDArray[np.integer]]:
        return [
            np.array(ids, dtype) for ids in tokenizer.encode_batch([text for _, text, _ in batch])
        ]

    with ThreadPoolExecutor(1) as thread:
        before: tuple[Batch, Future[list[npt.NDArray[np.integer]]]] | None = None
        for batch in batches:
            ahead = batch, thread.submit(encode, batch)
            if before is not None:
                yield before[0], before[1].result()
            before = ahead
        if before is not None:
            yield before[0], before[1].result()


def _batches(documents: Iterable[Document]) -> Iterator[Batch]:
    """The pieces of all documents, about BATCH_BYTES at a time."""
    batch: Batch = []
    size = 0
    for document in documents:
        rest = len(document.text)
        for text in cut_pieces(document.text):
            rest -= len(text)
            batch.append((document.domain, text, not rest))
            size += len(text) if text.isascii() else len(text.encode())
            if size >= BATCH_BYTES:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch
