"""Near-duplicates among texts, and texts that go round in circles.

Two texts are near-duplicates where the bigrams of their units (words, see `cleaning.units`) have a
Jaccard similarity of 0.7, which MinHash estimates to about 0.04. So short conversations, of which
one word differs in ten, still are, and those of one form about different things are not.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from teleflm.cleaning.signatures import band_keys, signatures, similarity, to_bytes

Places = npt.NDArray[np.int64]

_NGRAM, _THRESHOLD = 2, 0.7
_BANDS, _ROWS = 32, 4  # finds 99.98 % of those at the threshold
_TEXTS = 1024  # signed at once
# Of a band that very many share as many are compared; what one band misses, another finds.
_LEADERS = 16
# A reply repeats itself where more than this share of its runs of tokens stood in it before.
_RUN, _FEWEST, _MOST_REPEATED = 4, 16, 0.5


def near_duplicates(texts: Sequence[str], order: Iterable[int]) -> Places:
    """For each text the one that stands for it: itself, or the nearest of those that come before it
    in `order` and stand for themselves; so no chain of small changes makes two texts one."""
    count = len(texts)
    keys = np.zeros((count, _BANDS), np.uint64)
    rows = np.zeros((count, _BANDS * _ROWS), np.uint8)
    has_units = np.zeros(count, bool)
    for at in range(0, count, _TEXTS):
        signed, which = signatures(texts[at : at + _TEXTS], _NGRAM, _BANDS * _ROWS)
        keys[at + which] = band_keys(signed, _BANDS, np.uint64(0))
        rows[at + which] = to_bytes(signed)
        has_units[at + which] = True
    stands_for, leaders = np.arange(count), dict[object, list[int]]()
    for text in order:
        # One without words has only equal ones for duplicates.
        bands: list[object] = keys[text].tolist() if has_units[text] else [texts[text].strip()]
        candidates = {other for band in bands for other in leaders.get(band, ())}
        if nearest := _nearest(text, sorted(candidates), rows, bool(has_units[text])):
            stands_for[text] = nearest[0]
            continue
        for band in bands:
            of_band = leaders.setdefault(band, [])
            if len(of_band) < _LEADERS:
                of_band.append(text)
    return stands_for


def _nearest(
    text: int, candidates: list[int], rows: npt.NDArray[np.uint8], has_units: bool
) -> list[int]:
    """The nearest candidate that is a duplicate, if there is one."""
    if not candidates or not has_units:
        return candidates[:1]
    near = similarity(rows, np.full(len(candidates), text), np.array(candidates))
    best = int(near.argmax())
    return [candidates[best]] if near[best] >= _THRESHOLD else []


def goes_round(tokens: Sequence[int]) -> bool:
    """Whether most of a reply was said in it before: more than half of its runs of four tokens."""
    runs = Counter(zip(*(tokens[at:] for at in range(_RUN)), strict=False))
    total = sum(runs.values())
    return total > _FEWEST - _RUN and 1 - len(runs) / total > _MOST_REPEATED
