"""Clusters of samples, each one's share of what is kept, and who of a cluster is kept."""

import heapq
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from teleflm.errors import MissingExtraError

Vectors = npt.NDArray[np.float32]
Places = npt.NDArray[np.int64]

_MOST = 1000
_ITERATIONS = 50
# Samples of a cluster in the mean, at least: fewer are no neighbourhood.
_MEMBERS = 10
# The share of a cluster that is chosen from.
_BETTER = 0.75


def directions(vectors: Vectors) -> Vectors:
    """Vectors of length 1, (n, dims), from hidden states.

    Hidden states of a language model share a large mean, and few dims are far wider than all
    others: without them what is left tells kinds apart.
    """
    centred = vectors - vectors.mean(axis=0, dtype=np.float64)
    spread = centred.std(axis=0)
    scaled = centred / np.where(spread > 0, spread, 1.0)
    length = np.sqrt(np.square(scaled).sum(axis=1, keepdims=True))
    return (scaled / np.where(length > 0, length, 1.0)).astype(np.float32)


def find_clusters(vectors: Vectors, keep: int, seed: int) -> Places:
    """The cluster of each vector, numbered from the largest on.

    There are half as many as are to be kept, or the root of the number of vectors where that is
    more; of 10 members in the mean, and at most 1,000.

    Lloyd's k-means from a k-means++ start, in one thread: the order of a sum, and with it the last
    bits, would hang on their number. MiniBatchKMeans is quicker, and moves the centres of small
    clusters, the rare kinds, to where more samples are.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    try:
        from sklearn.cluster import KMeans
        from threadpoolctl import threadpool_limits
    except ImportError:
        raise MissingExtraError("scikit-learn", "clean") from None
    wanted = max(keep // 2, round(len(vectors) ** 0.5))
    different = len(np.unique(vectors, axis=0))
    number = max(1, min(wanted, len(vectors) // _MEMBERS, _MOST, different))
    with threadpool_limits(1):
        means = KMeans(number, n_init=1, max_iter=_ITERATIONS, random_state=seed)
        found = means.fit(vectors).labels_.astype(np.int64)
    sizes = np.bincount(found, minlength=number)
    rank = np.empty(number, np.int64)
    rank[np.argsort(-sizes, kind="stable")] = np.arange(number)
    return rank[found]


def shares(sizes: Sequence[int], keep: int) -> list[int]:
    """How many of each cluster are kept, `keep` in all: each has one, the first first, and the rest
    goes by the root of the sizes, so that what is rare counts for more than its number.

    Seats are given one by one by Sainte-Laguë's quotients; who has no more members gets none.
    """
    given = [0] * len(sizes)
    waiting = [(-float("inf"), at) for at, size in enumerate(sizes) if size]
    heapq.heapify(waiting)
    for _ in range(keep):
        _, at = heapq.heappop(waiting)
        given[at] += 1
        if given[at] < sizes[at]:
            heapq.heappush(waiting, (-(sizes[at] ** 0.5) / (2 * given[at] + 1), at))
    return given


def pick(vectors: Vectors, quality: npt.NDArray[np.float64], number: int) -> Places:
    """Which of a cluster's vectors are kept, (number,), in the order they are chosen.

    The first is the best. Each further one is, of the better three quarters, what lies furthest
    from all chosen before; of equals the better, then the earlier one.
    """
    order = np.argsort(-quality, kind="stable")
    order = order[: max(number, round(_BETTER * len(order)))]
    among = vectors[order]
    chosen = [0]
    nearest = np.full(len(order), np.inf)
    nearest[0] = -np.inf
    for _ in range(number - 1):
        # Summed by rows and not by a product of matrices, whose last bits hang on the threads.
        apart = np.square(among - among[chosen[-1]]).sum(axis=1)
        nearest = np.minimum(nearest, apart)
        nearest[chosen[-1]] = -np.inf
        chosen.append(int(nearest.argmax()))
    return order[chosen]
