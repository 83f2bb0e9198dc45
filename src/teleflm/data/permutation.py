"""A random order of 0 … size-1 without a table: any place of it at once, in constant memory."""

import hashlib

import numpy as np
import numpy.typing as npt

ROUNDS = 6


def derive_key(*parts: object) -> npt.NDArray[np.uint64]:
    """Eight 64-bit words that follow from `parts` alone, shape (8,), alike on every machine."""
    text = "\x1f".join(str(part) for part in parts)
    return np.frombuffer(hashlib.blake2b(text.encode()).digest(), dtype="<u8").astype(np.uint64)


def _mix(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finalizer of SplitMix64 (Steele, Lea and Flood 2014): every bit moves every bit."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def permute(
    positions: npt.NDArray[np.int64], size: int, key: npt.NDArray[np.uint64]
) -> npt.NDArray[np.int64]:
    """What stands at `positions` (each in 0 … size-1) of the order that `key` picks.

    A Feistel network on the cells of a grid of rows × columns ≥ size, row and column in turn moved
    by an amount that the other decides, is a bijection whatever the mixing (Luby and Rackoff 1988);
    a cell past `size` goes through again until it falls inside (cycle walking, Black and Rogaway
    2002). The grid is nearly square, so few cells are outside.
    """
    rows = int(np.ceil(np.sqrt(size)))
    columns = -(-size // rows)
    values = positions.astype(np.uint64)
    outside = np.ones(values.shape, bool)
    while outside.any():
        row, column = np.divmod(values[outside], np.uint64(columns))
        for turn in range(ROUNDS):
            if turn % 2:
                row = (row + _mix(column ^ key[turn]) % np.uint64(rows)) % np.uint64(rows)
            else:
                column = (column + _mix(row ^ key[turn]) % np.uint64(columns)) % np.uint64(columns)
        values[outside] = row * np.uint64(columns) + column
        outside = values >= np.uint64(size)
    return values.astype(np.int64)
