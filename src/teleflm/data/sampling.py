"""A sample of a corpus: so many bytes, divided among its domains by their weights."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from teleflm.data.find import Corpus
from teleflm.data.pieces import cut_pieces
from teleflm.data.sources import Document, Reader, Reading, iterate_documents, note
from teleflm.data.unpack import Progress
from teleflm.errors import DataError

_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?(|B|kB|MB|GB|TB)", re.IGNORECASE)
_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}


@dataclass(frozen=True)
class Sample:
    """How much of a corpus is taken.

    Attributes:
        size: bytes of text, UTF-8.
        weights: of each domain; its share of them all is its share of the bytes. Without weights
            every domain has the share that it has of the corpus.
    """

    size: int
    weights: Mapping[str, float] = field(default_factory=dict)

    def of(self, sizes: Mapping[str, int]) -> dict[str, float]:
        """The share of each domain's text that is taken, 0 to 1, where domains have `sizes` bytes.

        A domain with less text than the bytes that are its part is taken whole, and told.

        Raises DataError for a weight of a domain that is not there, and a domain without a weight
        where others have one.
        """
        weights = self.weights or sizes
        if unknown := sorted(weights.keys() - sizes.keys()):
            raise DataError(
                f"--weight {unknown[0]}: the corpus has no such domain; it has "
                f"{', '.join(sorted(sizes))}"
            )
        if silent := sorted(sizes.keys() - weights.keys()):
            raise DataError(
                f"--weight: none for the domain {silent[0]}; give each domain one, 0 to leave it "
                "out"
            )
        total, shares = sum(weights.values()), {}
        for domain, size in sizes.items():
            part = self.size * weights[domain] / total
            shares[domain] = min(part / size, 1.0)
            if self.weights and part > size:
                note(
                    f"domain {domain}: {size:,} bytes of text, all of them taken, where its weight "
                    f"asks for {part:,.0f}"
                )
        return shares


def parse_size(text: str) -> int:
    """Bytes of `4GB`, `500 MB`, `2.5kB` or `1000`. Raises DataError for what is no size."""
    match = _SIZE.fullmatch(text.strip())
    size = round(float(match[1]) * _UNITS[match[2].lower()]) if match else 0
    if size < 1:
        raise DataError(f"--sample {text}: not a size; write it as 500MB or 4GB")
    return size


def parse_weights(options: list[str]) -> dict[str, float]:
    """Weights by domain of `NAME=W`. Raises DataError for what is no weight, a domain with two, and
    weights that are all 0."""
    weights: dict[str, float] = {}
    for option in options:
        name, _, number = option.rpartition("=")
        if not name or not re.fullmatch(r"\d+(\.\d+)?", number):
            raise DataError(f"--weight {option}: write it as DOMAIN=W, with a W of 0 or more")
        if name in weights:
            raise DataError(f"--weight {option}: {name} has a weight already; give it one")
        weights[name] = float(number)
    if weights and not any(weights.values()):
        raise DataError("--weight: all are 0, which leaves no text; give a domain more")
    return weights


def sampled_texts(
    corpus: Corpus,
    reading: Reading | None = None,
    sample: Sample | None = None,
    progress: Progress | None = None,
) -> Iterator[str]:
    """Texts of a corpus, in pieces of at most 16,384 characters; of all of it without a `sample`.

    A sample takes pieces evenly out of each domain. The corpus is read twice for it: the first time
    measures the domains. `progress` counts both.

    Raises DataError as `iterate_documents` and `Sample.of`.
    """
    documents = iterate_documents(corpus, reading, progress=progress)
    if sample is None:
        for document in documents:
            yield from cut_pieces(document.text)
        return
    sizes: Counter[str] = Counter()
    for document in documents:
        sizes[document.domain] += len(document.text.encode())
    shares, seen, taken = sample.of(sizes), Counter[str](), Counter[str]()
    for text, domain, _ in _pieces(corpus, reading, progress):
        size = len(text.encode())
        # What is due by now. So the first piece is taken, and at most one too many.
        if taken[domain] < shares[domain] * (seen[domain] + size):
            taken[domain] += size
            yield text
        seen[domain] += size


def _pieces(
    corpus: Corpus, reading: Reading | None, progress: Progress | None
) -> Iterator[Document]:
    # What is left out was told the first time.
    reader = Reader(reading or Reading(), progress)
    for file in corpus.files:
        for document in reader.read(file):
            for text in cut_pieces(document.text):
                yield Document(text, document.domain)
