"""Batches as a pure function of (seed, step, rank, ranks): there is no loader state to save.

Sequences are numbered through the run. Each block of 65,536 numbers gives every domain a fixed
quota in a shuffled order, so a number leads at once to a domain and to an index within it, and the
index to a window of its text in that epoch's random order. Any batch can be computed at once.
"""

import functools
from collections.abc import Sequence

import numpy as np

from teleflm.data.mixture import Domain
from teleflm.data.permutation import derive_key, permute
from teleflm.data.reading import masks_documents, training_windows
from teleflm.data.windows import IntArray, Rows, Windows, stacked
from teleflm.errors import ConfigError, DataError

BLOCK = 65_536


def quotas(weights: Sequence[float], block: int = BLOCK) -> list[int]:
    """Sequences of each domain in a block: `block` shared by weight, by the largest remainder.

    Every positive weight gets at least 1, which the largest domain pays for, and once it is down to
    1 itself the next one.
    """
    total = sum(weights)
    exact = [block * weight / total for weight in weights]
    shares = [
        max(int(share), 1) if weight else 0 for share, weight in zip(exact, weights, strict=True)
    ]
    by_remainder = sorted(range(len(exact)), key=lambda i: (shares[i] - exact[i], i))
    for i in by_remainder[: max(block - sum(shares), 0)]:
        shares[i] += 1
    while (excess := sum(shares) - block) > 0:
        largest = shares.index(max(shares))
        shares[largest] -= min(excess, shares[largest] - 1)
    return shares


@functools.lru_cache(maxsize=4)
def _shuffled_block(seed: int, block: int, shares: tuple[int, ...]) -> tuple[IntArray, IntArray]:
    """Domain of each number in a block, and its rank among the numbers of that domain."""
    labels = np.repeat(np.arange(len(shares)), shares)
    generator = np.random.Philox(key=derive_key("labels", seed, block)[:2])
    # NumPy keeps the raw stream of a bit generator for good, but not what its shuffle does with it.
    labels = labels[np.argsort(generator.random_raw(labels.size), kind="stable")]
    order = np.argsort(labels, kind="stable")
    starts = np.cumsum((0, *shares[:-1]))
    ranks = np.empty_like(labels)
    ranks[order] = np.arange(labels.size) - starts[labels[order]]
    return labels, ranks


class Loader:
    """The batches of one run or stage; every method is a pure function of its arguments."""

    def __init__(
        self,
        domains: Sequence[Domain],
        *,
        seed: int,
        sequence_length: int,
        global_batch: int,
        vocab_size: int,
        document_mask: bool = False,
        first_step: int = 0,
        first_sequence: int = 0,
    ) -> None:
        """Row b of `step` is sequence first_sequence + (step - first_step) * global_batch + b.

        Raises DataError as `training_windows`.
        """
        # By name: the order in which a file happens to list them is no part of the run.
        self._domains = sorted(domains, key=lambda domain: domain.name)
        self._seed = seed
        self._global_batch = global_batch
        self._vocab_size = vocab_size
        self._first_step = first_step
        self._first_sequence = first_sequence
        self._quotas = tuple(quotas([domain.weight for domain in self._domains]))
        masks = masks_documents(domains, document_mask)
        self._windows = [
            training_windows(domain, sequence_length, masks) for domain in self._domains
        ]

    def batch(self, step: int, rank: int = 0, ranks: int = 1) -> Rows:
        """This rank's share of a step, global_batch // ranks rows.

        The shares of all ranks, one below the other, are the same global batch for any `ranks`.
        Raises ConfigError where `ranks` does not divide the batch, DataError for a token outside
        the vocabulary.
        """
        if self._global_batch % ranks:
            raise ConfigError(
                f"training.global_batch {self._global_batch} cannot be shared by {ranks} ranks; "
                f"choose a multiple of {ranks}"
            )
        rows = self._global_batch // ranks
        labels, windows = self._locate(self._first_row(step) + rank * rows, rows)
        batch = stacked(
            [
                self._windows[label].row(int(window))
                for label, window in zip(labels, windows, strict=True)
            ]
        )
        for ids in (batch.tokens, batch.targets):
            if ids.max() >= self._vocab_size:
                self._refuse(ids, labels, windows)
        return batch

    @property
    def windows(self) -> dict[str, Windows]:
        """Those of an epoch of each domain, by its name."""
        return {d.name: each for d, each in zip(self._domains, self._windows, strict=True)}

    def sources(self, step: int) -> list[tuple[str, int]]:
        """Domain and window of each row of the global batch of `step`."""
        labels, windows = self._locate(self._first_row(step), self._global_batch)
        return [
            (self._domains[label].name, int(window))
            for label, window in zip(labels, windows, strict=True)
        ]

    def _first_row(self, step: int) -> int:
        return self._first_sequence + (step - self._first_step) * self._global_batch

    def _locate(self, first: int, count: int) -> tuple[IntArray, IntArray]:
        """Domain index and window of the sequences `first` … `first + count - 1`."""
        labels, indices = np.empty(count, np.int64), np.empty(count, np.int64)
        shares = np.array(self._quotas)
        done = 0
        while done < count:
            block, start = divmod(first + done, BLOCK)
            part = slice(done, done + min(BLOCK - start, count - done))
            inside = slice(start, start + part.stop - part.start)
            block_labels, block_ranks = _shuffled_block(self._seed, block, self._quotas)
            labels[part] = block_labels[inside]
            indices[part] = block * shares[labels[part]] + block_ranks[inside]
            done = part.stop
        return labels, self._windows_at(labels, indices)

    def _windows_at(self, labels: IntArray, indices: IntArray) -> IntArray:
        windows = np.empty_like(indices)
        for label in np.unique(labels):
            size = self._windows[label].count
            epochs = indices // size
            for epoch in np.unique(epochs[labels == label]):
                here = (labels == label) & (epochs == epoch)
                key = derive_key("windows", self._seed, self._domains[label].name, epoch)
                windows[here] = permute(indices[here] % size, size, key)
        return windows

    def _refuse(self, ids: IntArray, labels: IntArray, windows: IntArray) -> None:
        row, place = np.argwhere(ids >= self._vocab_size)[0]
        raise DataError(
            f"{self._domains[labels[row]].train.path}: token {ids[row, place]} in window "
            f"{windows[row]} is outside the vocabulary of {self._vocab_size}; use the tokenizer "
            "this file was made with"
        )
