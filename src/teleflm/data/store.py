"""The token store: a folder of token files by domain, their held-out parts, and the tokenizer."""

import functools
import json
import shutil
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from teleflm.data.chat_parts import COUNTED_SUFFIX, ChatCounts
from teleflm.data.domains import HELD_OUT_SUFFIX, DomainNames
from teleflm.data.find import Corpus, find_corpus
from teleflm.data.going_on import Saves
from teleflm.data.indexed import IndexedTokens, token_dtype
from teleflm.data.parts import DomainCounts
from teleflm.data.preparation import Preparation
from teleflm.data.sources import Reader, Reading, check_weights, domains_ahead, note
from teleflm.data.tokenizer import Tokenizer
from teleflm.data.tokenizer_files import SETTINGS
from teleflm.data.unpack import Progress
from teleflm.data.workers import SPILLS, Workers, any_done
from teleflm.errors import DataError
from teleflm.files import write_whole, written_aside

FORMAT = 1
STORE_FILE = "store.json"
TEXT, CHAT = "text", "chat"
"""Kinds of stores: of documents, and of conversations."""


class TokenStore:
    """A folder made by `prepare`, or by `prepare_chat`.

    Attributes:
        kind: TEXT or CHAT.
        template: of a chat store, as it was asked for.
        vocab_size: of the tokenizer.
        fingerprint: of the tokenizer.
        copies: of documents beside the first ones, by their weights.
        domains: what each holds; of a chat store `ChatCounts`.
    """

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
                self.copies: int = content.get("weights", {}).get("repeated", 0)
                self.kind: str = content.get("kind", TEXT)
                self.template: str | None = content.get("template")
                kind = ChatCounts if self.kind == CHAT else DomainCounts
                self.domains: dict[str, DomainCounts] = {
                    name: kind(**counts) for name, counts in content["domains"].items()
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

    def counted(self, domain: str) -> IndexedTokens | None:
        """Of a chat store which tokens of `train` are to be predicted, 1 or 0 for each, the same
        documents; else None. Raises DataError."""
        return self._open_counted(domain, "", self._counts(domain).tokens)

    def held_out_counted(self, domain: str) -> IndexedTokens | None:
        """The same of `held_out`."""
        return self._open_counted(domain, HELD_OUT_SUFFIX, self._counts(domain).held_out_tokens)

    def _open_counted(self, domain: str, suffix: str, count: int) -> IndexedTokens | None:
        return self._open(domain, suffix + COUNTED_SUFFIX, count) if self.kind == CHAT else None

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


class Work(NamedTuple):
    """What `data prepare` is to do, checked before anything is read."""

    corpus: Corpus
    reading: Reading
    tokenizer_dir: Path
    tokenizer: Tokenizer
    out: Path
    names: DomainNames

    @property
    def dtype(self) -> "np.dtype[np.integer]":
        """Of the tokens."""
        return token_dtype(self.tokenizer.vocab_size)

    @property
    def known(self) -> list[Any]:
        """What the tokens of a file follow from, beside the file."""
        return [FORMAT, self.tokenizer.fingerprint, self.tokenizer.eos_id, asdict(self.reading)]


def work_of(
    paths: Iterable[Path], tokenizer_dir: Path, out: Path, reading: Reading, force: bool
) -> Work:
    """The work of `prepare`; raises the DataErrors that are known before a document is read."""
    tokenizer = Tokenizer.load(tokenizer_dir)
    if tokenizer.eos_id is None:
        raise DataError(
            f"{tokenizer_dir}: the tokenizer names no token that ends a text, and every document "
            f"needs one; name it as eos_token in {Path(tokenizer_dir) / SETTINGS}"
        )
    out = Path(out).absolute()
    check_free(out, force)
    corpus = find_corpus(paths)
    check_weights(corpus, reading)
    names = DomainNames()
    names.admit(domains_ahead(corpus, reading))
    return Work(corpus, reading, Path(tokenizer_dir), tokenizer, out, names)


def prepare(
    paths: Iterable[Path],
    tokenizer_dir: Path,
    out: Path,
    *,
    reading: Reading | None = None,
    held_out: float = 0.02,
    force: bool = False,
    workers: int = 1,
    spills: Path | None = None,
    progress: Progress | None = None,
) -> TokenStore:
    """Tokenize the documents under `paths` into a new token store `out`.

    A document begins with what the tokenizer puts before a text, and ends with its end of text.
    About the share `held_out` of each domain, spread evenly over it, is kept apart for evaluation;
    the same input gives the same parts. Documents longer than 16,384 characters are cut at line
    ends into pieces that may be held out one by one; the pieces between two held-out ones stay one
    document. With `reading.weight_key` what is trained on is repeated by its weight, the copies far
    from one another (see `Repeats`), and what is held out is not.

    With `workers` above 1 so many processes read and tokenize, and the store is the same. What
    other machines have tokenized already lies in `spills`, and stays there.

    The store is written aside and renamed, so `out` is whole or is not there; `force` replaces an
    existing store (nothing else). Raises DataError for bad input (see `iterate_documents`), domains
    that cannot be file names or are more than 100, where that is known before the first document
    is read, and an `out` that exists; MachineError for a full disk.
    """
    check_share(held_out)
    work = work_of(paths, tokenizer_dir, out, reading or Reading(), force)
    for line in work.corpus.left_out:
        note(line)
    tokenizer, files = work.tokenizer, work.corpus.files
    with written_aside(work.out, json.dumps([*work.known, held_out])) as aside:
        saves = Saves(aside, files)
        try:
            many = None
            if workers > 1 or spills is not None:
                folder = spills or aside / SPILLS
                many = Workers(
                    workers,
                    folder,
                    files,
                    work.reading,
                    tokenizer_dir,
                    work.dtype,
                    kept=spills is not None,
                )
            preparation = Preparation(aside, files, tokenizer, held_out, saves, many)
            reader = Reader(work.reading, progress)
            domains = preparation.run(reader, work.names)
        except BaseException:
            if not saves.exist and not any_done(aside / SPILLS):
                shutil.rmtree(aside)
            raise
        saves.remove()
        tokenizer.save(aside)
        content = {
            "format": FORMAT,
            "vocab_size": tokenizer.vocab_size,
            "tokenizer": tokenizer.fingerprint,
            "domains": {name: asdict(counts) for name, counts in domains.items()},
        }
        if work.reading.weight_key:
            left_out, repeated = reader.left_out.by_weight, preparation.repeated
            content["weights"] = {
                "key": work.reading.weight_key,
                "left_out": left_out,
                "repeated": repeated,
            }
            note(f"{repeated:,} copies of documents were added by their weight")
        text = json.dumps(content, indent=2, ensure_ascii=False)
        write_whole(aside / STORE_FILE, text + "\n")
    return TokenStore(work.out)


def check_share(held_out: float) -> None:
    """Raises DataError for a held-out share that is none."""
    if not 0 < held_out < 1:
        raise DataError(f"a held-out share of {held_out} is not between 0 and 1; try 0.02")


def check_free(out: Path, force: bool) -> None:
    """Raises DataError for a place where something is that must not be replaced."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / STORE_FILE).is_file():
        raise DataError(f"{out}: exists and is not a token store; choose another folder")
    if not force:
        raise DataError(f"{out}: exists already; choose another folder or use --force")
