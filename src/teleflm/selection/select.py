"""Less is more: of many samples the few that are good and differ, and why the others are not.

The order of work: near-duplicates go, the rest are measured by the model and put into clusters,
noise goes, each cluster gets its share, and of a cluster those are kept that are good and far from
each other. Every step is a function of the samples, the weights and the seed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import compress

import numpy as np
import numpy.typing as npt
import torch

from teleflm.errors import DataError
from teleflm.model.network import TeleFLM
from teleflm.selection.adapted import adapted_nats
from teleflm.selection.clusters import Places, Vectors, directions, find_clusters, pick, shares
from teleflm.selection.measure import FloatArray, Measured, measure
from teleflm.selection.quality import Surprise, likeness, surprise_of
from teleflm.selection.repeats import goes_round, near_duplicates
from teleflm.selection.samples import Sample
from teleflm.selection.tokens import Writing

KEPT = "kept"
DUPLICATE = "near-duplicate"
TOO_LONG = "no reply within the model's context"
ROUND = "says the same again and again"
NOISE = "noise"
LOW_SCORE = "low score"
OTHERS = "others of its cluster were better or more different"
REASONS = (DUPLICATE, TOO_LONG, ROUND, NOISE, LOW_SCORE, OTHERS)
"""Why a sample is left out; the first that holds counts."""


@dataclass(frozen=True)
class Selection:
    """What became of n samples.

    Attributes:
        verdicts: `KEPT` or one of `REASONS`, (n,).
        clusters: of each, -1 where it was not measured, (n,).
        vectors: directions of length 1, zero where it was not measured, (n, hidden).
        surprise: of replies, the neighbours considered; NaN where it was not measured, (n,).
        stands_for: of a near-duplicate what it is one of, else itself, (n,).
    """

    verdicts: list[str]
    clusters: Places
    vectors: Vectors
    surprise: Surprise
    stands_for: Places

    @property
    def kept(self) -> list[int]:
        """The numbers of those that are kept, rising."""
        return [number for number, verdict in enumerate(self.verdicts) if verdict == KEPT]


def select(
    network: TeleFLM,
    writing: Writing,
    samples: Sequence[Sample],
    keep: int,
    seed: int,
    device: torch.device,
    progress: Callable[[int], object] = lambda _: None,
) -> Selection:
    """Choose `keep` of the samples.

    Args:
        network: the model, in float32.
        writing: how it reads.
        samples: in an order that says which of equal ones goes before.
        keep: how many.
        seed: of the clusters' first centres.
        device: where to compute.
        progress: takes how many are done since the call before.

    Raises:
        CheckpointError: the model computes no number.
        DataError: fewer samples than `keep`, or fewer of use; one that the template refuses.
        MissingExtraError: scikit-learn is not installed.
    """
    if len(samples) < keep:
        raise DataError(
            f"{len(samples):,} records, and {keep:,} are to be kept; give more, or a smaller --keep"
        )
    scores = np.array([sample.score or 0.0 for sample in samples])
    # Of equals the one with the higher score stays, then the earlier one.
    order = np.argsort(-scores, kind="stable").tolist()
    stands_for = near_duplicates([sample.text for sample in samples], order)
    own = np.flatnonzero(stands_for == np.arange(len(samples)))
    written = [writing(samples[number]) for number in own.tolist()]
    progress(len(samples) - len(own))
    found = measure(network, writing.start, written, device, progress)
    has_reply = np.array([len(measured.tokens) > 0 for measured in found])
    verdicts = np.full(len(samples), DUPLICATE, object)
    verdicts[own] = np.where(has_reply, OTHERS, TOO_LONG)
    measured = list(compress(found, has_reply))
    _check_enough(len(measured), keep, verdicts)
    judged = _judge(measured, scores[own[has_reply]], keep, seed)
    places = own[has_reply]
    verdicts[places] = judged.verdicts
    clusters, surprise = np.full(len(samples), -1), np.full(len(samples), np.nan)
    vectors = np.zeros((len(samples), judged.vectors.shape[1]), np.float32)
    clusters[places], vectors[places] = judged.clusters, judged.vectors
    surprise[places] = judged.surprise.shares
    of_all = judged.surprise._replace(shares=surprise)
    return Selection(verdicts.tolist(), clusters, vectors, of_all, stands_for)


@dataclass(frozen=True)
class _Judged:
    verdicts: npt.NDArray[np.object_]
    clusters: Places
    vectors: Vectors
    surprise: Surprise


def _judge(samples: Sequence[Measured], scores: FloatArray, keep: int, seed: int) -> _Judged:
    """Of different samples with replies; `scores` are all alike where nobody gave any."""
    vectors, questions, replies = (
        directions(np.stack([getattr(sample, part) for sample in samples]))
        for part in ("whole", "question", "reply")
    )
    clusters = find_clusters(questions, keep, seed)
    surprise = surprise_of(
        adapted_nats(samples, clusters),
        np.array([sample.bytes for sample in samples]),
        np.array([len(sample.tokens) for sample in samples]),
    )
    verdicts = np.full(len(samples), OTHERS, object)
    verdicts[surprise.shares > 1] = NOISE
    verdicts[[goes_round(sample.tokens.tolist()) for sample in samples]] = ROUND
    useful = np.flatnonzero(verdicts == OTHERS)
    _check_enough(len(useful), keep, verdicts)
    # Scores say the same of all kinds, as losses do not: the worse half is out, if there is enough.
    best = np.sort(scores[useful])[::-1]
    least = min(best[keep - 1], np.median(best))
    verdicts[useful[scores[useful] < least]] = LOW_SCORE
    useful = np.flatnonzero(verdicts == OTHERS)
    quality = scores[useful]
    if best[0] == best[-1]:
        quality = likeness(
            surprise.shares[useful], questions[useful], replies[useful], clusters[useful]
        )
    seats = shares(np.bincount(clusters[useful]).tolist(), keep)
    for cluster, number in enumerate(seats):
        members = clusters[useful] == cluster
        if number:
            chosen = pick(vectors[useful[members]], quality[members], number)
            verdicts[useful[members][chosen]] = KEPT
    return _Judged(verdicts, clusters, vectors, surprise)


def _check_enough(there: int, keep: int, verdicts: npt.NDArray[np.object_]) -> None:
    """Raises DataError where fewer are of use than are to be kept."""
    if there < keep:
        out = [f"{np.sum(verdicts == r):,} {r}" for r in REASONS[:-1] if np.any(verdicts == r)]
        raise DataError(
            f"{there:,} records are of use, and {keep:,} are to be kept ({', '.join(out)}); "
            "give more, or a smaller --keep"
        )
