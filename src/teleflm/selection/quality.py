"""How good samples are, by the model's own loss."""

import numpy as np
import numpy.typing as npt

from teleflm.selection.measure import FloatArray

Places = npt.NDArray[np.int64]

# Standard deviations above the median, of logarithms: one good reply of 160 is beyond, were they
# spread like Gauss's curve.
_NOISE = 2.5
# Where nearly all samples are alike, a little more than theirs is no noise yet.
_LEAST_EXCESS = 0.4
# Turns a median absolute deviation into the standard deviation of Gauss's curve.
_GAUSS = 1.4826
_NEIGHBOURS = 3


def noise_above(surprise: FloatArray) -> float:
    """The surprise, in nats per byte, from which on a sample is noise: far above the median on the
    scale of the logarithm. Medians, as noise must not say what noise is."""
    logs = np.log(surprise)
    middle = float(np.median(logs))
    excess = _NOISE * _GAUSS * float(np.median(np.abs(logs - middle)))
    return float(np.exp(middle + max(excess, _LEAST_EXCESS)))


def likeness(
    surprise: FloatArray, questions: FloatArray, replies: FloatArray, clusters: Places
) -> FloatArray:
    """How much each sample is like others of its cluster, 0 at best.

    Args:
        surprise: nats per byte of its replies.
        questions: their directions, (n, hidden).
        replies: the same of replies.
        clusters: the cluster of each.

    A reply that is harder than others of its kind is likely to be wrong, one that is easier says
    little, and one that lies far from the replies to the questions next to it is likely to be
    another question's. A rare kind within a larger one's cluster has its own for neighbours.
    """
    unlike = np.zeros(len(surprise))
    for cluster in np.unique(clusters):
        members = np.flatnonzero(clusters == cluster)
        for figure in (np.log(surprise[members]), _apart(questions[members], replies[members])):
            unlike[members] += _deviations(figure)
    return -unlike


def _apart(questions: FloatArray, replies: FloatArray) -> FloatArray:
    """The median distance of each reply from those to the nearest questions."""
    found = np.zeros(len(questions))
    neighbours = min(_NEIGHBOURS, len(questions) - 1)
    for at, (question, reply) in enumerate(zip(questions, replies, strict=True)):
        far = np.square(questions - question).sum(axis=1)
        far[at] = np.inf
        nearest = np.argsort(far, kind="stable")[:neighbours]
        if neighbours:
            found[at] = np.median(np.sqrt(np.square(replies[nearest] - reply).sum(axis=1)))
    return found


def _deviations(values: FloatArray) -> FloatArray:
    apart = np.abs(values - np.median(values))
    scale = _GAUSS * np.median(apart)
    return apart / scale if scale > 0 else apart
