"""A score of how much a text is like good text: a linear classifier on hashed n-grams.

It sees runs of words and characters reduced to their form (forms.py), so that it learns how clean
text is built rather than what its examples speak of. Good and bad examples have the same lengths
and the same total weight, script by script and source by source.
"""

import hashlib
import heapq
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from teleflm.cleaning.forms import form_features
from teleflm.cleaning.prose_rules import is_chinese
from teleflm.errors import DataError, MissingExtraError
from teleflm.files import naming_full_disk

FORMAT = 2
_FEATURES = 1 << 18
_INVERSE_PENALTY = 30.0  # chosen on sources that training did not see (docs/log.md)
_PIECES, _PIECE = 4, 300  # how many of a long text, and characters in each
MOST_DOCUMENTS = 5000
"""Taken of a source, those whose hashes are the smallest."""
_SHORTEST = 20  # characters of an example
_HEADER = "teleflm_score"
_LETTER = re.compile(r"[A-Za-z0-9]")
# The word that a cut text begins and ends with; what is longer than 30 letters is none.
_FIRST = re.compile(r"^[A-Za-z0-9]{1,30}(?![A-Za-z0-9])")
_LAST = re.compile(r"(?<![A-Za-z0-9])[A-Za-z0-9]{1,30}$")
# What a file was made with; another program's would give other scores for the same weights.
_MADE_WITH = {"format": FORMAT, "features": _FEATURES, "pieces": [_PIECES, _PIECE], "forms": 1}


class Scorer:
    """Scores texts by a file that `train` wrote."""

    def __init__(self, weights: np.ndarray, intercept: float) -> None:
        self._weights, self._intercept = weights, intercept
        self._hashed = _Hashed()

    @classmethod
    def load(cls, path: Path) -> "Scorer":
        """Read a file that `train` wrote.

        Raises:
            DataError: it is missing, damaged, of another format, or not a score's at all.
            MissingExtraError: scikit-learn is not installed.
        """
        header, weights = _read(path)
        return cls(weights.astype(np.float64), float(header["intercept"]))

    def score(self, text: str) -> float:
        """From 0 (as the bad examples) to 1 (as the good ones)."""
        indices, values = self._hashed(_part(text))
        logit = float(values @ self._weights[indices]) + self._intercept
        return 1 / (1 + math.exp(-max(min(logit, 500.0), -500.0)))


class Example(NamedTuple):
    """A text of a source, and 256 random bits that are its own."""

    text: str
    good: bool
    source: str
    bits: int

    @property
    def script(self) -> str:
        """Which texts it is compared with."""
        return "chinese" if is_chinese(self.text) else "other"


class Figures(NamedTuple):
    """What came of a training: the area under the ROC curve of the held-out texts, of all and by
    script; how many were learnt from and held out; scripts that only one side had."""

    auc: float
    auc_by_script: dict[str, float]
    trained: int
    held_out: int
    left_out_scripts: list[str]
    sources: dict[str, int]


def train(
    good: Mapping[str, Iterable[str]], bad: Mapping[str, Iterable[str]], out: Path, held_out: float
) -> Figures:
    """Train on texts by source, and write the result to `out`; the same file for the same texts.

    Args:
        held_out: the share of texts that is only measured on, by the hash of each.

    Raises:
        DataError: a side without texts, or none that is held out or learnt from.
        MissingExtraError: scikit-learn is not installed.
        MachineError: the disk is full or fails.
    """
    hashed = _Hashed()  # first, as it asks for a library
    examples = [
        example
        for is_good, side in ((True, good), (False, bad))
        for source, texts in side.items()
        for example in _examples(texts, is_good, source)
    ]
    both, left_out = _comparable(examples)
    cut = _cut_alike(both)
    apart = [example.bits % 10**6 < held_out * 10**6 for example in cut]
    learnt = [e for e, is_apart in zip(cut, apart, strict=True) if not is_apart]
    measured = [e for e, is_apart in zip(cut, apart, strict=True) if is_apart]
    for examples, name in ((learnt, "to learn from"), (measured, "held out")):
        if {e.good for e in examples} != {True, False}:
            raise DataError(
                f"{len(examples)} texts {name}, good and bad ones are needed in a language that "
                "both sides have; give more text, or another --held-out"
            )
    weights, intercept = _fit(learnt, hashed)
    logits = hashed.matrix([example.text for example in measured]) @ weights
    auc, by_script = _areas(measured, logits)
    figures = Figures(
        auc,
        by_script,
        len(learnt),
        len(measured),
        left_out,
        {source: sum(e.source == source for e in examples) for source in (*good, *bad)},
    )
    _write(out, weights, intercept, figures)
    return figures


def _part(text: str) -> str:
    """What is looked at of a text: all, or pieces evenly apart. No line ends stand between them:
    they would tell a long text from a short one."""
    if len(text) <= _PIECES * _PIECE:
        return text
    apart = (len(text) - _PIECE) / (_PIECES - 1)
    starts = [int(i * apart) for i in range(_PIECES)]
    return " ".join(_at_words(text, start, start + _PIECE) for start in starts)


class _Hashed:
    """Texts as sparse vectors of length 1: counts of features, by their hashes. scikit-learn's
    HashingVectorizer makes the same ones, and takes a millisecond for a call."""

    def __init__(self) -> None:
        try:
            from sklearn.utils import murmurhash3_32
        except ImportError:
            raise MissingExtraError("scikit-learn", "clean") from None

        @lru_cache(maxsize=1 << 16)
        def index(feature: str) -> int:
            return abs(murmurhash3_32(feature, 0)) % _FEATURES

        self._index = index

    def __call__(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """Places and values of what is not zero."""
        counts = Counter(map(self._index, form_features(text)))
        values = np.fromiter(counts.values(), np.float64, len(counts))
        places = np.fromiter(counts, np.int64, len(counts))
        return places, values / max(float(np.sqrt(values @ values)), 1.0)

    def matrix(self, texts: Sequence[str]) -> Any:
        """A row of shape (features,) for each text, as SciPy's CSR matrix."""
        from scipy.sparse import csr_matrix

        rows = [self(text) for text in texts]
        ends = np.cumsum([0, *(len(places) for places, _ in rows)])
        values, places = (np.concatenate([row[i] for row in rows]) for i in (1, 0))
        return csr_matrix((values, places, ends), shape=(len(rows), _FEATURES))


def _examples(texts: Iterable[str], good: bool, source: str) -> list[Example]:
    """A sample that hangs on the texts alone, neither on their order nor on how often one is
    there."""
    hashed = {}
    for text in texts:
        bits = int.from_bytes(hashlib.sha256(text.encode()).digest(), "big")
        hashed[bits] = _part(text)
        if len(hashed) >= 2 * MOST_DOCUMENTS:
            hashed = {bits: hashed[bits] for bits in heapq.nsmallest(MOST_DOCUMENTS, hashed)}
    kept = heapq.nsmallest(MOST_DOCUMENTS, hashed)
    return [Example(hashed[b], good, source, b) for b in kept if len(hashed[b]) >= _SHORTEST]


def _comparable(examples: list[Example]) -> tuple[list[Example], list[str]]:
    """Those in a script that good and bad texts are in, and the other scripts: from what one side
    alone has, nothing but the language would be learnt."""
    sides: dict[str, set[bool]] = {}
    for example in examples:
        sides.setdefault(example.script, set()).add(example.good)
    left_out = sorted(script for script, found in sides.items() if len(found) < 2)
    return [e for e in examples if e.script not in left_out], left_out


def _cut_alike(examples: list[Example]) -> list[Example]:
    """Each text cut to the length of one of the other side, where that is shorter: lengths of good
    and bad texts of a script then have one distribution, that of the shorter of two."""
    lengths: dict[tuple[str, bool], list[int]] = {}
    for example in examples:
        lengths.setdefault((example.script, example.good), []).append(len(example.text))
    cut = []
    for example in examples:
        others = lengths[example.script, not example.good]
        length = min(len(example.text), others[(example.bits >> 64) % len(others)])
        start = (example.bits >> 128) % (len(example.text) - length + 1)
        cut.append(example._replace(text=_at_words(example.text, start, start + length)))
    return cut


def _at_words(text: str, start: int, end: int) -> str:
    """What of `text` lies from `start` to `end`, without the parts of words at its ends: by them it
    would be known that it was cut, and so how long it had been."""
    cut = text[start:end]
    if start and _LETTER.match(text[start - 1]):
        cut = _FIRST.sub("", cut)
    if end < len(text) and _LETTER.match(text[end]):
        cut = _LAST.sub("", cut)
    return cut


def _fit(examples: list[Example], hashed: _Hashed) -> tuple[np.ndarray, float]:
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    model = LogisticRegression(solver="liblinear", C=_INVERSE_PENALTY, random_state=0)
    vectors = hashed.matrix([example.text for example in examples])
    # One thread: the order of a sum, and with it the last bits, would hang on their number.
    with threadpool_limits(1):
        model.fit(vectors, [e.good for e in examples], sample_weight=_weights(examples))
    return model.coef_[0].astype(np.float32), float(model.intercept_[0])


def _weights(examples: Sequence[Example]) -> np.ndarray:
    """Scripts alike, in each good and bad alike, and in each of these the sources alike."""

    def key(at: int) -> tuple[str, bool, str]:
        example = examples[at]
        return example.script, example.good, example.source

    weights = np.zeros(len(examples))
    order = sorted(range(len(examples)), key=key)
    groups = [list(group) for _, group in groupby(order, key)]
    sides = [key(group[0])[:2] for group in groups]
    for group, side in zip(groups, sides, strict=True):
        weights[group] = 1 / (len(group) * sides.count(side))
    return weights * len(examples) / weights.sum()


def _areas(examples: list[Example], logits: np.ndarray) -> tuple[float, dict[str, float]]:
    from sklearn.metrics import roc_auc_score

    good = np.array([e.good for e in examples])
    scripts = np.array([e.script for e in examples])
    by_script = {}
    for script in sorted(set(scripts)):
        chosen = scripts == script
        if len(set(good[chosen])) == 2:
            by_script[str(script)] = float(roc_auc_score(good[chosen], logits[chosen]))
    return float(roc_auc_score(good, logits)), by_script


def _write(out: Path, weights: np.ndarray, intercept: float, figures: Figures) -> None:
    from safetensors.numpy import save

    header = {
        **_MADE_WITH,
        "intercept": intercept,
        "sha256": hashlib.sha256(weights.tobytes()).hexdigest(),
        "training": figures._asdict(),
    }
    # One entry: the library writes several in an order of its own, another one each time.
    content = save({"weights": weights}, {_HEADER: json.dumps(header, sort_keys=True)})
    aside = out.with_name(f".{out.name}.partial")
    with naming_full_disk(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        aside.write_bytes(content)
        aside.replace(out)


def _read(path: Path) -> tuple[dict[str, Any], np.ndarray]:
    from safetensors import SafetensorError, safe_open

    again = "train it again with: teleflm data score train"
    try:
        with safe_open(path, framework="numpy") as file:
            header = json.loads((file.metadata() or {})[_HEADER])
            weights = file.get_tensor("weights")
            made_with = {key: header[key] for key in _MADE_WITH}
            digest, _ = header["sha256"], float(header["intercept"])
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; {again}") from None
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: not a score, or damaged ({error}); {again}") from None
    if made_with != _MADE_WITH:
        raise DataError(
            f"{path}: a score of another version (made with {made_with}, this program reads "
            f"{_MADE_WITH}); {again}"
        )
    if hashlib.sha256(weights.tobytes()).hexdigest() != digest:
        raise DataError(f"{path}: damaged, its weights are not those that were written; {again}")
    return header, weights
