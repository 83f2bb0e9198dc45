"""The work of `data prepare --chat`: conversations written as tokens into a store of their own."""

import json
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from teleflm.data.chat_parts import (
    COUNTED_SUFFIX,
    ChatCounts,
    ChatWriter,
    ConversationTokens,
    kept_and_trained,
)
from teleflm.data.chat_records import ChatRecord, read_conversations
from teleflm.data.chat_tokenizer import Outfit, outfit
from teleflm.data.conversation import Conversations
from teleflm.data.domains import HELD_OUT_SUFFIX, DomainNames
from teleflm.data.indexed import token_dtype
from teleflm.data.processes import worker_pool
from teleflm.data.sources import Reading, note
from teleflm.data.store import CHAT, FORMAT, STORE_FILE, TokenStore, check_free, check_share
from teleflm.data.tokenizer import Tokenizer
from teleflm.data.unpack import Progress
from teleflm.errors import DataError, MachineError
from teleflm.files import write_whole, written_aside

# Conversations that a worker writes as tokens at a time, and such lots under way for each.
_LOT = 64
_AHEAD = 2


def prepare_chat(
    paths: Iterable[Path],
    tokenizer_dir: Path,
    out: Path,
    template: str,
    *,
    format: str | None = None,
    reading: Reading | None = None,
    held_out: float = 0.02,
    force: bool = False,
    workers: int = 1,
    progress: Progress | None = None,
) -> TokenStore:
    """Write the conversations under `paths` as tokens into a new chat store `out`.

    A document is a conversation, whole, as `Conversations` writes it; beside its tokens stands
    which of them are to be predicted. The tokenizer that lies in the store has the template with
    it. About the share `held_out` of each domain's conversations is kept apart for evaluation.

    The store is written aside and renamed, so `out` is whole or is not there; it does not depend on
    the number of `workers`.

    Args:
        template: see `outfit`.
        format: see `read_conversations`.
        force: replace an existing store.

    Raises:
        DataError: bad input (see `read_conversations`, `outfit` and `Conversations.encode`), with
            the file and the line where it is of one conversation; domains that cannot be file
            names; an `out` that exists.
        MachineError: a full disk, or a worker that died.
        MissingExtraError: transformers, which renders templates, is not installed.
    """
    check_share(held_out)
    out = Path(out).absolute()
    check_free(out, force)
    with written_aside(out) as aside:
        ready = outfit(Path(tokenizer_dir), template, aside)
        _tell(ready)
        records = read_conversations(paths, format, reading=reading, progress=progress)
        dtype = token_dtype(ready.tokenizer.vocab_size)
        writers: dict[str, ChatWriter] = {}
        names, cut = DomainNames((HELD_OUT_SUFFIX, COUNTED_SUFFIX)), 0
        for domain, row, cuts in _rows(records, aside, template, dtype, workers):
            if domain not in writers:
                names.admit([domain])
                writers[domain] = ChatWriter(aside, domain, dtype, held_out)
            writers[domain].add(row)
            cut += cuts
        if cut:
            note(
                f"{cut:,} replies begin within a token, which is another one where a reply is "
                "yet to be written; end the template's beginning of a reply with a special token"
            )
        content = {
            "format": FORMAT,
            "kind": CHAT,
            "template": template,
            "vocab_size": ready.tokenizer.vocab_size,
            "tokenizer": ready.tokenizer.fingerprint,
            "domains": {name: asdict(counts) for name, counts in _close(writers).items()},
        }
        if twice := kept_and_trained(writers.values()):
            note(
                f"{twice:,} held-out conversations are word for word among those to train on too, "
                "so a model may know their replies by heart"
            )
        write_whole(aside / STORE_FILE, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    return TokenStore(out)


def samples_of(store: TokenStore, number: int) -> list[dict[str, Any]]:
    """`number` training conversations of each domain, evenly apart: `domain`, `position` (of the
    conversation), `text`, and `counted`, the stretches [start, end] of its characters that are to
    be predicted."""
    found = []
    for domain in store.domains:
        train, counted = store.train(domain), store.counted(domain)
        assert counted is not None, "it is a chat store"
        shown = min(number, len(train))
        for i in range(shown):
            place = i * (len(train) - 1) // max(shown - 1, 1)
            text, runs = _decoded(store.tokenizer, train.document(place), counted.document(place))
            found.append({"domain": domain, "position": place, "text": text, "counted": runs})
    return found


def _decoded(
    tokenizer: Tokenizer, ids: npt.NDArray[np.integer], counted: npt.NDArray[np.integer]
) -> tuple[str, list[tuple[int, int]]]:
    """A conversation's text, and which characters of it count."""

    def length(end: int) -> int:
        return len(tokenizer.decode(ids[:end].tolist(), skip_special_tokens=False))

    edges = np.flatnonzero(np.diff(counted, prepend=0, append=0)).reshape(-1, 2)
    runs = [(length(start), length(end)) for start, end in edges.tolist()]
    return tokenizer.decode(ids.tolist(), skip_special_tokens=False), runs


def _tell(ready: Outfit) -> None:
    if ready.renamed:
        note(f"the tokenizer's spare tokens became {', '.join(ready.renamed)}")
    if ready.added:
        note(
            f"{', '.join(ready.added)} were added to the tokenizer: a model that goes on from a "
            f"checkpoint needs a vocab_size of {ready.tokenizer.vocab_size:,} or more"
        )
    if ready.stop is None:
        note(
            f"the template {ready.name} has no token behind a reply, so a model that is tuned with "
            "it does not learn to stop"
        )


_Written = tuple[str, ConversationTokens, int]
"""A conversation with its domain, and how many of its replies begin within a token."""


def _rows(
    records: Iterator[ChatRecord],
    folder: Path,
    template: str,
    dtype: npt.DTypeLike,
    workers: int,
) -> Iterator[_Written]:
    """The conversations in order, each as tokens."""
    lots = _lots(records)
    if workers == 1:
        _begin(folder, template)
        for lot in lots:
            if isinstance(lot, DataError):
                raise lot
            yield from _write(lot, dtype)
        return
    try:
        with worker_pool(workers, _begin, folder, template) as pool:
            for future in _ahead(pool, lots, dtype, workers):
                yield from future.result()
    except BrokenProcessPool:
        raise MachineError(
            "a worker of data prepare died (killed, or out of memory); --workers 1 needs the least "
            "memory"
        ) from None


def _lots(records: Iterator[ChatRecord]) -> Iterator[list[ChatRecord] | DataError]:
    """Conversations, many at a time; a fault of their files comes behind those before it, so that
    the first fault is told, whatever the number of workers."""
    lot: list[ChatRecord] = []
    try:
        for record in records:
            # What was read is not asked for any more, and workers need not have it.
            lot.append(record._replace(record={}))
            if len(lot) == _LOT:
                yield lot
                lot = []
    except DataError as error:
        if lot:
            yield lot
        yield error
        return
    if lot:
        yield lot


def _ahead(
    pool: ProcessPoolExecutor,
    lots: Iterator[list[ChatRecord] | DataError],
    dtype: npt.DTypeLike,
    workers: int,
) -> "Iterator[Future[list[_Written]]]":
    ahead: deque[Future[list[_Written]] | DataError] = deque()
    while True:
        for lot in islice(lots, _AHEAD * workers - len(ahead)):
            if isinstance(lot, DataError):
                ahead.append(lot)
            else:
                ahead.append(pool.submit(_write, lot, dtype))
        if not ahead:
            return
        first = ahead.popleft()
        if isinstance(first, DataError):
            raise first
        yield first


# What writes conversations in this process, loaded once.
_loaded: list[Conversations] = []


def _begin(folder: Path, template: str) -> None:
    _loaded[:] = [Conversations(folder, Tokenizer.load(folder), template)]


def _write(records: Sequence[ChatRecord], dtype: npt.DTypeLike) -> list[_Written]:
    (talk,), found = _loaded, []
    for record in records:
        try:
            encoded = talk.encode(record.messages)
        except DataError as error:
            raise DataError(f"{record.where}: {error}") from error
        counted = np.array(encoded.counted, np.uint8)
        row = ConversationTokens(np.array(encoded.ids, dtype), counted, encoded.bytes)
        found.append((record.domain, row, encoded.cut))
    return found


def _close(writers: dict[str, ChatWriter]) -> dict[str, ChatCounts]:
    """The counts of the domains that can be divided."""
    whole, small = {}, []
    for domain, writer in sorted(writers.items()):
        if writer.close():
            whole[domain] = writer.counts
        else:
            small.append(domain)
    if not whole:
        raise DataError(
            f"domain {small[0]!r} is a single conversation, so nothing can be held out for "
            "evaluation; give it more"
        )
    if small:
        note(f"left out, as a single conversation cannot be divided: {', '.join(small)}")
    return whole
