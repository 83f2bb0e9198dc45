"""The token store: a folder of token files by domain, their held-out parts, and the tokenizer."""

import functools
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from teleflm.data.indexed import IndexedTokens, IndexedWriter, token_dtype
from teleflm.data.pieces import cut_pieces
from teleflm.data.sources import Document, Reading, iterate_documents
from teleflm.data.tokenizer import Tokenizer
from teleflm.data.unpack import Progress
from teleflm.errors import DataError
from teleflm.files import write_whole, written_aside

FORMAT = 1
STORE_FILE = "store.json"
HELD_OUT_SUFFIX = ".held-out"
# Enough for all cores at a time, little enough for memory: a token costs about 100 bytes on its
# way through the tokenizers library.
BATCH_CHARACTERS = 1 << 20
# Each domain keeps two files open; 256 open files is the default limit on macOS.
MOST_DOMAINS = 100
GOLDEN_RATIO = (5**0.5 - 1) / 2


@dataclass
class DomainCounts:
    """What a domain holds; `bytes` are UTF-8 bytes of text, tokens count each `</s>` too."""

    documents: int = 0
    tokens: int = 0
    bytes: int = 0
    held_out_documents: int = 0
    held_out_tokens: int = 0
    held_out_bytes: int = 0


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
    existing store (nothing else). Raises DataError for bad input (see `iterate_documents`), a
    domain too small to divide, and an `out` that exists; MachineError for a full disk.
    """
    if not 0 < held_out < 1:
        raise DataError(f"a held-out share of {held_out} is not between 0 and 1; try 0.02")
    tokenizer = Tokenizer.load(tokenizer_dir)
    out = Path(out).absolute()
    _check_free(out, force)
    documents = iterate_documents(paths, reading, progress=progress)
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


class _Piece(NamedTuple):
    tokens: npt.NDArray[np.integer]
    bytes: int
    ends_document: bool


@dataclass
class _DomainWriter:
    """Deals the pieces of one domain to its training and its held-out file."""

    train: IndexedWriter
    held_out: IndexedWriter
    eos: npt.NDArray[np.integer]
    share: float
    counts: DomainCounts = field(default_factory=DomainCounts)
    waiting: _Piece | None = None
    number: int = 0
    document: list[npt.NDArray[np.integer]] = field(default_factory=list)

    def add(self, piece: _Piece) -> None:
        # One piece always waits, so that `close` can give the last one to a part that has none.
        if self.waiting is not None:
            self._deal(self.waiting, self._is_due())
        self.waiting = piece
        self.number += 1

    def _is_due(self) -> bool:
        """Whether the waiting piece is held out.

        Multiples of the golden ratio modulo 1 are the most even spread there is and keep no step
        with a corpus that repeats itself, say in two languages in turn, as every 50th piece would.
        The size of a piece has no say, or short ones would be held out more often.
        """
        return (self.number * GOLDEN_RATIO) % 1 < self.share

    def _deal(self, piece: _Piece, held_out: bool) -> None:
        if held_out:
            self._end_document()
            tokens = np.concatenate([piece.tokens, self.eos])
            self.held_out.add(tokens)
            self.counts.held_out_tokens += tokens.size
            self.counts.held_out_bytes += piece.bytes
            return
        self.document.append(piece.tokens)
        self.counts.bytes += piece.bytes
        if piece.ends_document:
            self._end_document()

    def _end_document(self) -> None:
        if self.document:
            tokens = np.concatenate([*self.document, self.eos])
            self.train.add(tokens)
            self.counts.tokens += tokens.size
            self.document = []

    def close(self, domain: str) -> DomainCounts:
        assert self.waiting is not None
        missing = not self.counts.held_out_bytes
        self._deal(self.waiting, missing or (self.counts.bytes > 0 and self._is_due()))
        self._end_document()
        if not self.counts.bytes:
            raise DataError(
                f"domain {domain!r} is a single piece of text, so nothing can be held out for "
                "evaluation; give it more documents"
            )
        self.counts.documents = self.train.documents
        self.counts.held_out_documents = self.held_out.documents
        self.train.close()
        self.held_out.close()
        return self.counts


def _write_domains(
    documents: Iterable[Document], tokenizer: Tokenizer, folder: Path, share: float
) -> dict[str, DomainCounts]:
    dtype = token_dtype(tokenizer.vocab_size)
    eos = np.array([tokenizer.eos_id], dtype)
    writers: dict[str, _DomainWriter] = {}
    try:
        for batch in _batches(documents):
            ids = tokenizer.encode_batch([text for _, text, _ in batch])
            for (domain, text, last), tokens in zip(batch, ids, strict=True):
                if domain not in writers:
                    _check_domain(domain, writers)
                    train = IndexedWriter(folder / domain, dtype)
                    held_out = IndexedWriter(folder / f"{domain}{HELD_OUT_SUFFIX}", dtype)
                    writers[domain] = _DomainWriter(train, held_out, eos, share)
                piece = _Piece(np.array(tokens, dtype), len(text.encode()), last)
                writers[domain].add(piece)
        return {domain: writer.close(domain) for domain, writer in sorted(writers.items())}
    except BaseException:
        for writer in writers.values():
            writer.train.discard()
            writer.held_out.discard()
        raise


def _batches(documents: Iterable[Document]) -> Iterator[list[tuple[str, str, bool]]]:
    """Pieces as (domain, text, whether it ends its document), about BATCH_CHARACTERS at a time."""
    batch: list[tuple[str, str, bool]] = []
    characters = 0
    for document in documents:
        pieces = list(cut_pieces(document.text))
        for number, text in enumerate(pieces, start=1):
            batch.append((document.domain, text, number == len(pieces)))
            characters += len(text)
        if characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _check_domain(name: str, others: Iterable[str]) -> None:
    """A domain is a file name here, so names from a corpus are not to be trusted."""
    others = list(others)
    if not re.fullmatch(r"\w[\w .+-]{0,99}", name) or name.endswith(HELD_OUT_SUFFIX):
        raise DataError(
            f"domain {name!r} cannot be a file name: use letters, digits, '_', '-', '.', '+' and "
            f"spaces, at most 100, and not the ending {HELD_OUT_SUFFIX!r}"
        )
    for other in others:
        if name.casefold() == other.casefold():
            raise DataError(f"domains {other!r} and {name!r} differ only in case; rename one")
    if len(others) >= MOST_DOMAINS:
        raise DataError(
            f"more than {MOST_DOMAINS} domains; the domain is a record's metadata.domain, else the "
            "file's name up to the first dot: gather the text of a domain in fewer, larger files"
        )
