"""MinHash signatures of many texts at once (Broder, 1997); a byte a hash (Li and König, 2010)."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from teleflm.cleaning.units import Hashes, Places, mix, ngram_hashes, unit_hashes

Signatures = npt.NDArray[np.uint32]
Bytes = npt.NDArray[np.uint8]

_FINAL = np.uint32(0x9E3779B1)
# Two hashes that differ have the same byte by chance.
_CHANCE = 1 / 256
# Rows compared at once, so that what it takes stays small.
_ROWS = 1 << 14


def signatures(texts: Sequence[str], ngram: int, hashes: int) -> tuple[Signatures, Places]:
    """The least value of each of `hashes` functions over a text's n-grams of units.

    Returns the signatures, shape (texts with units, hashes), and which texts those are.
    """
    grams, starts = ngram_hashes(*unit_hashes(texts), ngram)
    texts_with_units = np.flatnonzero(np.diff(starts))
    firsts = starts[texts_with_units]
    values = (grams >> np.uint64(32)).astype(np.uint32)
    multipliers = (mix(np.arange(1, hashes + 1, dtype=np.uint64)) >> np.uint64(32)).astype(
        np.uint32
    )
    least = np.empty((hashes, len(firsts)), np.uint32)
    if len(firsts):
        permuted = np.empty_like(values)
        for row, multiplier in zip(least, multipliers | np.uint32(1), strict=True):
            # One to one on 32 bits. The values are mixed, so this orders them as if at random.
            np.multiply(values, multiplier, out=permuted)
            np.minimum.reduceat(permuted, firsts, out=row)
    return np.ascontiguousarray(least.T), texts_with_units


def to_bytes(signature: Signatures) -> Bytes:
    """A byte of each hash, which hangs on all its bits; the same shape."""
    return ((signature * _FINAL) >> np.uint32(24)).astype(np.uint8)


def band_keys(signature: Signatures, bands: int, language: np.uint64 | Hashes) -> Hashes:
    """A key of each band of each text, shape (texts, bands), that hangs on the language too.

    `language` is a hash, of all texts or of each, shape (texts, 1).
    """
    rows = signature.shape[1] // bands
    keys = mix(np.arange(1, bands + 1, dtype=np.uint64)) ^ language
    banded = signature[:, : bands * rows].reshape(len(signature), bands, rows)
    for row in range(rows):
        keys = mix(keys ^ banded[:, :, row])
    return keys


def similarity(rows: Bytes, left: Places, right: Places) -> npt.NDArray[np.float32]:
    """The estimated Jaccard similarity of each pair `rows[left[i]]`, `rows[right[i]]`."""
    equal = np.empty(len(left), np.float32)
    for at in range(0, len(left), _ROWS):
        some = slice(at, at + _ROWS)
        (rows[left[some]] == rows[right[some]]).mean(axis=1, out=equal[some])
    return (equal - _CHANCE) / (1 - _CHANCE)
