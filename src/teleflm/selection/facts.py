"""What a selection has to say of itself: `data select --json`, and what its page shows besides."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from teleflm.report.selection import Example, Shown
from teleflm.selection.samples import Sample
from teleflm.selection.select import DUPLICATE, KEPT, NOISE, REASONS, Selection

# Characters of an example, and how many are shown of a cluster or a reason.
_LONGEST, _EXAMPLES = 300, 3


def facts_of(selection: Selection, samples: Sequence[Sample]) -> dict[str, Any]:
    """Counts of what was kept and left out: in all, by reason, cluster and domain."""
    reasons = Counter(selection.verdicts)
    clusters = selection.clusters[selection.clusters >= 0]
    domains = Counter(sample.domain for sample in samples)
    kept = Counter(samples[number].domain for number in selection.kept)
    return {
        "records": len(samples),
        "kept": reasons[KEPT],
        "left_out": {reason: reasons[reason] for reason in REASONS},
        "noise_above": {
            "nats_per_byte": selection.surprise.nats_per_byte,
            "nats_per_token": selection.surprise.nats_per_token,
        },
        "clusters": [
            {
                "records": int(np.sum(clusters == cluster)),
                "kept": _count(selection, cluster, KEPT),
                "noise": _count(selection, cluster, NOISE),
            }
            for cluster in range(int(clusters.max()) + 1)
        ],
        "domains": {
            name: {"records": domains[name], "kept": kept[name]} for name in sorted(domains)
        },
    }


def _count(selection: Selection, cluster: int, verdict: str) -> int:
    return sum(
        selection.verdicts[number] == verdict
        for number in np.flatnonzero(selection.clusters == cluster)
    )


def shown_of(selection: Selection, samples: Sequence[Sample]) -> Shown:
    """Places in the plane and examples. They are spread evenly over the order of the records."""
    measured = np.flatnonzero(selection.clusters >= 0)
    verdicts = np.array(selection.verdicts, object)

    def some(chosen: Sequence[int] | np.ndarray) -> list[Example]:
        spread = np.linspace(0, len(chosen) - 1, min(_EXAMPLES, len(chosen))).astype(int)
        return [_example(selection, samples, int(chosen[at])) for at in spread]

    return Shown(
        places=_plane(selection.vectors[measured]),
        kept=verdicts[measured] == KEPT,
        noise=verdicts[measured] == NOISE,
        surprise=selection.surprise.shares[measured],
        clusters=[
            (some(of[verdicts[of] == KEPT]), some(of[verdicts[of] != KEPT]))
            for cluster in range(int(selection.clusters.max()) + 1)
            for of in [np.flatnonzero(selection.clusters == cluster)]
        ],
        reasons={reason: some(np.flatnonzero(verdicts == reason)) for reason in REASONS},
    )


def _example(selection: Selection, samples: Sequence[Sample], number: int) -> Example:
    sample, verdict = samples[number], selection.verdicts[number]
    text = sample.text if len(sample.text) <= _LONGEST else f"{sample.text[:_LONGEST]} …"
    if verdict == DUPLICATE:
        verdict = f"{verdict} of {samples[selection.stands_for[number]].where}"
    return Example(sample.where, text, verdict, float(selection.surprise.shares[number]))


def _plane(vectors: np.ndarray) -> np.ndarray:
    """The two directions in which vectors differ most, (n, 2)."""
    centred = vectors - vectors.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    places: np.ndarray = centred @ axes[:, -2:][:, ::-1]
    return places
