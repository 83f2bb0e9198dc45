"""How good samples are, by the model's own loss."""

from typing import NamedTuple

import numpy as np

from teleflm.selection.clusters import Places, Vectors
from teleflm.selection.measure import FloatArray

# Standard deviations above the median, of logarithms: one good reply of 160 is beyond, were they
# spread like Gauss's curve.
_NOISE = 2.5
# Where nearly all samples are alike, a little more than theirs is no noise yet.
_LEAST_EXCESS = 0.4
# Turns a median absolute deviation into the standard deviation of Gauss's curve.
_GAUSS = 1.4826
_NEIGHBOURS = 3


class Surprise(NamedTuple):
    """How badly n samples are predicted.

    Attributes:
        shares: of what noise begins at, (n,); noise is above 1.
        nats_per_byte, nats_per_token: what noise begins at; it is above both.
    """

    shares: FloatArray
    nats_per_byte: float
    nats_per_token: float


def surprise_of(nats: FloatArray, sizes: FloatArray, tokens: FloatArray) -> Surprise:
    """The surprise of samples with so many nats, bytes and tokens of replies.

    A reply that is written letter by letter is dear by the byte, and one of rare words by the
    token; noise is dear by both.
    """
    by_byte, by_token = nats / sizes, nats / tokens
    limits = _far_above(by_byte), _far_above(by_token)
    return Surprise(np.minimum(by_byte / limits[0], by_token / limits[1]), *limits)


def _far_above(figures: FloatArray) -> float:
    """Far above the median on the scale of logarithms; by medians, as noise must not say what noise
    is."""
    logs = np.log(figures)
    middle = float(np.median(logs))
    excess = _NOISE * _GAUSS * float(np.median(np.abs(logs - middle)))
    return float(np.exp(middle + max(excess, _LEAST_EXCESS)))


def likeness(
    surprise: FloatArray, questions: Vectors, replies: Vectors, clusters: Places
) -> FloatArray:
    """How much each sample is like others of its cluster, 0 at best.

    Args:
        surprise: of each, (n,).
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


def _apart(questions: Vectors, replies: Vectors) -> FloatArray:
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
