"""How well tokenizers fit a corpus: tokens per byte by domain, and what their tokens are."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from teleflm.data.find import Corpus
from teleflm.data.pieces import cut_pieces
from teleflm.data.sources import Reading, iterate_documents
from teleflm.data.unpack import Progress
from teleflm.data.vocabulary import Vocabulary

_BATCH_BYTES = 1 << 19
_LISTED = 8
_DIGITS = "1234567890"


@dataclass(frozen=True)
class Fit:
    """A tokenizer on a corpus.

    Attributes:
        vocab_size: the largest token id and one.
        pre_tokenizer: the name of the cut into words, None where it has none that is known.
        tokens_per_byte: tokens per UTF-8 byte of the text, by domain.
        tokens_per_byte_mean: their plain mean over domains.
        tokens: of all text.
        bytes_per_token: of all text.
        single_byte_share: share of those tokens that stand for one byte.
        lost_share: share of the text's bytes that no token stands for: what it does not know is
            dropped or `<unk>`, and its tokens per byte say less than they seem to.
        digits: what 1234567890 is cut into.
        longest: the tokens of most bytes in the vocabulary; bytes that are no UTF-8 are U+FFFD.
        unused: how many tokens of the vocabulary the text never has, special ones not counted.
        unused_share: the share of the vocabulary that they are.
        unused_examples: evenly out of them, in the order of their ids.
        megabytes_per_second: of text, by the tokenizer's own way to take a batch on all cores.
    """

    vocab_size: int
    pre_tokenizer: str | None
    tokens_per_byte: dict[str, float]
    tokens_per_byte_mean: float
    tokens: int
    bytes_per_token: float
    single_byte_share: float
    lost_share: float
    digits: list[str]
    longest: list[str]
    unused: int
    unused_share: float
    unused_examples: list[str]
    megabytes_per_second: float


@dataclass
class _Count:
    """What a tokenizer made of the text so far."""

    uses: npt.NDArray[np.int64]
    tokens: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0


def compare(
    vocabularies: Mapping[str, Vocabulary],
    corpus: Corpus,
    reading: Reading | None = None,
    progress: Progress | None = None,
) -> tuple[dict[str, Fit], dict[str, int]]:
    """How each tokenizer fits the same text, and the UTF-8 bytes of that text by domain.

    A document goes to all of them in the same pieces of at most 16,384 characters, as
    `data prepare` cuts it.

    Raises DataError for a bad corpus; see `iterate_documents`.
    """
    counts = {
        name: _Count(np.zeros(vocabulary.size, np.int64))
        for name, vocabulary in vocabularies.items()
    }
    sizes: Counter[str] = Counter()
    for batch in _batches(corpus, reading, progress):
        domains = [domain for domain, _ in batch]
        texts = [text for _, text in batch]
        for domain, text in batch:
            sizes[domain] += len(text.encode())
        for name, vocabulary in vocabularies.items():
            _count(counts[name], vocabulary, domains, texts)
    fits = {name: _fit(vocabularies[name], count, sizes) for name, count in counts.items()}
    return fits, dict(sizes)


def _batches(
    corpus: Corpus, reading: Reading | None, progress: Progress | None
) -> Iterator[list[tuple[str, str]]]:
    batch: list[tuple[str, str]] = []
    size = 0
    for document in iterate_documents(corpus, reading, progress=progress):
        for text in cut_pieces(document.text):
            batch.append((document.domain, text))
            size += len(text)
            if size >= _BATCH_BYTES:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch


def _count(count: _Count, vocabulary: Vocabulary, domains: list[str], texts: list[str]) -> None:
    start = time.perf_counter()
    encoded = vocabulary.encode_batch(texts)
    count.seconds += time.perf_counter() - start
    for domain, ids in zip(domains, encoded, strict=True):
        count.tokens[domain] += len(ids)
    together = np.concatenate([np.asarray(ids, np.int64) for ids in encoded])
    count.uses += np.bincount(together, minlength=count.uses.size)


def _fit(vocabulary: Vocabulary, count: _Count, sizes: Mapping[str, int]) -> Fit:
    # One that knows nothing of a text has no tokens for it.
    spellings, total, text = vocabulary.spellings, count.tokens.total() or 1, sum(sizes.values())
    rates = {domain: count.tokens[domain] / size for domain, size in sorted(sizes.items())}
    lengths = np.zeros_like(count.uses)
    for index, spelt in spellings.items():
        lengths[index] = len(spelt)
    single = int(count.uses[lengths == 1].sum())
    # Pieces may begin a text with a space that it has not, so there may be more.
    told = int(count.uses @ lengths)
    unused = [index for index in sorted(spellings) if not count.uses[index]]
    longest = sorted(spellings, key=lambda i: (-len(spellings[i]), i))
    (digits,) = vocabulary.encode_batch([_DIGITS])
    examples = [unused[i * len(unused) // _LISTED] for i in range(min(_LISTED, len(unused)))]

    def shown(ids: list[int]) -> list[str]:
        return [spellings.get(index, b"").decode(errors="replace") for index in ids]

    return Fit(
        vocab_size=vocabulary.size,
        pre_tokenizer=vocabulary.pre_tokenizer,
        tokens_per_byte=rates,
        tokens_per_byte_mean=sum(rates.values()) / len(rates),
        tokens=total,
        bytes_per_token=text / total,
        single_byte_share=single / total,
        lost_share=max(1 - told / text, 0.0),
        digits=shown(digits),
        longest=shown(longest[:_LISTED]),
        unused=len(unused),
        unused_share=len(unused) / len(spellings),
        unused_examples=shown(examples),
        megabytes_per_second=text / 1e6 / count.seconds,
    )
