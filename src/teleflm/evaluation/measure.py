"""Bits per byte of a model by domain and by position, with standard errors."""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from statistics import fmean

import numpy as np

from teleflm.data.unpack import Progress
from teleflm.errors import ConfigError, DataError
from teleflm.evaluation.scorer import Scorer
from teleflm.evaluation.text import FloatArray, Text
from teleflm.evaluation.windows import (
    Chats,
    ChatsRead,
    Disjoint,
    Rolling,
    Window,
    Windower,
    Windowing,
)
from teleflm.parallel.ranks import Ranks

_FIRST_BAND = 128


@dataclass(frozen=True)
class Band:
    """Predictions with `first` to `last` tokens of their window before them, the predicted one not
    counted."""

    first: int
    last: int
    tokens: int
    loss: float
    bpb: float | None


@dataclass(frozen=True)
class Measured:
    """What was measured.

    Attributes:
        bpb: bits per byte of each domain.
        bpb_stderr: their standard errors, over windows; None of a single one.
        bpb_mean: the plain mean over domains, None without any.
        loss: nats a token over all domains' tokens, None without any.
        tokens, bytes: how much was predicted.
        positions: by position, over all domains.
        conversations: of chats, of which replies alone are predicted; else None.
        windows: nats and bytes of each window of a domain that has bytes, (windows, 2).
    """

    bpb: dict[str, float]
    bpb_stderr: dict[str, float | None]
    bpb_mean: float | None
    loss: float | None
    tokens: int
    bytes: int
    positions: list[Band]
    conversations: ChatsRead | None = None
    windows: dict[str, FloatArray] = field(default_factory=dict)


NOTHING = Measured({}, {}, None, None, 0, 0, [])
"""Where no text was given."""


class _Sums:
    """What is added up of a domain: nats, bytes and tokens of each band of position, and nats and
    bytes of each window, by its number."""

    def __init__(self, length: int) -> None:
        bands = 1 + max(0, math.ceil(math.log2(length / _FIRST_BAND)))
        self.bands = np.zeros((bands, 3))
        self.windows: dict[int, tuple[float, float]] = {}

    def add(self, number: int, window: Window, nats: FloatArray) -> None:
        counted, sizes = window.counted, window.sizes
        edges = [0, *(_FIRST_BAND << band for band in range(len(self.bands)))]
        for band in range(len(self.bands)):
            part = slice(edges[band], edges[band + 1])
            here = counted[part]
            self.bands[band] += nats[part][here].sum(), sizes[part][here].sum(), here.sum()
        self.windows[number] = float(nats[counted].sum()), float(sizes[counted].sum())

    def take(self, other: "_Sums") -> None:
        """Add what another rank has."""
        self.bands += other.bands
        self.windows |= other.windows

    @property
    def in_order(self) -> FloatArray:
        """Nats and bytes of each window, (windows, 2)."""
        return np.array([self.windows[number] for number in sorted(self.windows)])


def ratio_and_error(nats: FloatArray, sizes: FloatArray) -> tuple[float, float | None]:
    """Σ nats / Σ sizes in bits, over windows (n,), and its standard error as that of a ratio of
    sums; None of one window."""
    size, count = float(sizes.sum()), len(nats)
    ratio = float(nats.sum()) / size
    if count < 2:
        return ratio / math.log(2), None
    spread = float(np.square(nats - ratio * sizes).sum()) * count / (count - 1)
    return ratio / math.log(2), math.sqrt(spread) / size / math.log(2)


def difference(one: Measured, other: Measured) -> dict[str, tuple[float, float | None]]:
    """Bits per byte that `one` needs more than `other` in each domain, with the standard error of
    the difference; only of domains whose windows are of the same bytes."""
    found = {}
    for domain, windows in one.windows.items():
        others = other.windows.get(domain)
        if others is not None and np.array_equal(windows[:, 1], others[:, 1]):
            found[domain] = ratio_and_error(windows[:, 0] - others[:, 0], windows[:, 1])
    return found


def measure(
    scorer: Scorer,
    text: Text,
    windowing: Windowing,
    progress: Progress,
    tokens: int | None = None,
    document_mask: bool = False,
) -> Measured:
    """Bits per byte of `text`; every rank calls this, and all get the same.

    Args:
        windowing: see `Disjoint` and `Rolling`; conversations stand each by itself, see `Chats`.
        progress: takes bytes read of those that `text` has.
        tokens: the most to predict of each domain, in whole windows, of which one is the least.
        document_mask: whether documents that share a window do not see each other.

    Raises:
        DataError: a token outside the model's vocabulary, or text without a token to predict.
        ConfigError: rolling windows of conversations.
    """
    sums: dict[str, _Sums] = {}
    chats = ChatsRead() if text.is_chat else None
    if text.is_chat and windowing != "disjoint":
        raise ConfigError(
            f"--windows {windowing}: of conversations, each read by itself, the replies alone are "
            "predicted; leave out --windows"
        )

    def windower() -> Windower:
        if chats is not None:
            return Chats(scorer.length, chats)
        if windowing == "disjoint":
            return Disjoint(scorer.length, document_mask)
        return Rolling(scorer.length, text.tokenizer.encode_prompt("")[-1], text.tokenizer.eos_id)

    windows = _windows(scorer, text, windower, progress, tokens)
    rows = scorer.rows_of(scorer.length)
    batches = iter(lambda: list(islice(windows, rows)), [])
    for number, batch in enumerate(batches):
        for window in batch:
            sums.setdefault(window.domain, _Sums(scorer.length))
        if number % scorer.ranks != scorer.rank:
            continue
        found = scorer.scores(
            [window.tokens for window in batch],
            [window.starts for window in batch if window.starts is not None],
        )
        for place, (window, (nats, _)) in enumerate(zip(batch, found, strict=True)):
            sums[window.domain].add(number * rows + place, window, nats)
    if not sums:
        raise DataError(_nothing(scorer, chats))
    if scorer.ranks > 1:
        parts = Ranks().gathered(lambda: sums)
        sums = {name: _Sums(scorer.length) for name in sums}
        for part in parts:
            for name, of in part.items():
                sums[name].take(of)
    return replace(_result(sums), conversations=chats)


def _nothing(scorer: Scorer, chats: ChatsRead | None) -> str:
    if chats is None:
        return "the text has no token to predict; give more of it"
    return (
        f"none of {chats.read:,} conversations has a reply that ends within {scorer.length:,} "
        "tokens; lengthen --sequence-length"
    )


def _windows(
    scorer: Scorer,
    text: Text,
    windower: Callable[[], Windower],
    progress: Progress,
    tokens: int | None,
) -> Iterator[Window]:
    most = math.inf if tokens is None else tokens
    windowers: dict[str, Windower] = {}
    taken: Counter[str] = Counter()
    enough: set[str] = set()
    vocabulary = scorer.model.vocab_size

    def admitted(windows: Iterator[Window]) -> Iterator[Window]:
        for window in windows:
            # The last window of a text is one like the others.
            size = scorer.length if window.replied is None else len(window.sizes)
            if taken[window.domain] and taken[window.domain] + size > most:
                enough.add(window.domain)
                return
            taken[window.domain] += size
            outside = window.tokens[(window.tokens < 0) | (window.tokens >= vocabulary)]
            if len(outside):
                raise DataError(
                    f"domain {window.domain!r}: token {outside[0]} is outside the model's "
                    f"vocabulary of {vocabulary:,}; use the tokenizer it was trained with"
                )
            yield window

    for piece in text.pieces(progress, enough):
        if piece.domain not in windowers:
            windowers[piece.domain] = windower()
        yield from admitted(windowers[piece.domain].add(piece))
    for last in windowers.values():
        yield from admitted(last.end())


def _result(sums: dict[str, _Sums]) -> Measured:
    sized = {name: of for name, of in sums.items() if of.bands[:, 1].sum()}
    windows = {name: of.in_order for name, of in sized.items()}
    found = {name: ratio_and_error(*each.T) for name, each in windows.items()}
    bands = sum((of.bands for of in sums.values()), np.zeros_like(next(iter(sums.values())).bands))
    nats, size, count = bands.sum(axis=0).tolist()
    return Measured(
        bpb={name: bpb for name, (bpb, _) in found.items()},
        bpb_stderr={name: error for name, (_, error) in found.items()},
        # Exactly rounded, so that the order of the domains has no say.
        bpb_mean=fmean(bpb for bpb, _ in found.values()) if found else None,
        loss=nats / count,
        tokens=round(count),
        bytes=round(size),
        positions=list(_bands(bands)),
        windows=windows,
    )


def _bands(bands: FloatArray) -> Iterator[Band]:
    for index, (nats, size, count) in enumerate(bands.tolist()):
        if count:
            first = _FIRST_BAND << (index - 1) if index else 0
            last = (_FIRST_BAND << index) - 1
            bpb = nats / math.log(2) / size if size else None
            yield Band(first, last, round(count), nats / count, bpb)
