"""The loss of replies after a glance at their neighbours.

A model that has not been tuned finds much of what it is to learn surprising, rare kinds before all;
its loss alone would take them for noise. What tells them apart is that a kind has members: what one
says helps to predict another, while noise helps nobody. So the model's probability of each token is
mixed with how often the other replies of the cluster have it, by itself and behind the token before
(an idea of kNN-LM, arXiv 1911.00172, with counts in place of a search).
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from teleflm.selection.measure import FloatArray, Measured

# Of the model; neighbours have the rest, single tokens and pairs of them half each.
_MODEL = 0.5
Places = npt.NDArray[np.int64]


def adapted_nats(samples: Sequence[Measured], clusters: Places) -> FloatArray:
    """Σ −log p over each sample's counted tokens, (samples,); p is the mixture."""
    nats = np.zeros(len(samples))
    for cluster in np.unique(clusters):
        members = np.flatnonzero(clusters == cluster)
        nats[members] = _of_cluster([samples[member] for member in members.tolist()])
    return nats


def _of_cluster(samples: Sequence[Measured]) -> FloatArray:
    lengths = np.array([len(sample.tokens) for sample in samples])
    owner = np.repeat(np.arange(len(samples)), lengths)
    model = np.exp(-np.concatenate([sample.nats for sample in samples]))
    _, token = np.unique(np.concatenate([s.tokens for s in samples]), return_inverse=True)
    # Behind none, a reply's first token has another one before it than all.
    begins = np.cumsum(lengths) - lengths
    before = np.roll(token, 1) + 1
    before[begins[lengths > 0]] = 0
    pair = before * (len(token) + 1) + token
    others = len(token) - lengths[owner]
    single = _others(token, owner) / np.maximum(others, 1)
    seen = _others(before, owner)
    double = np.where(seen > 0, _others(pair, owner) / np.maximum(seen, 1), single)
    mixed = _MODEL * model + (1 - _MODEL) * (single + double) / 2
    # The only one of its cluster has no neighbours to learn from.
    nats = -np.log(np.where(others > 0, mixed, model))
    return np.bincount(owner, nats, len(samples)).astype(np.float64)


def _others(key: Places, owner: Places) -> Places:
    """How often each key is there in what other samples own."""
    _, key, everywhere = np.unique(key, return_inverse=True, return_counts=True)
    _, mine, own = np.unique(
        owner * (len(everywhere) + 1) + key, return_inverse=True, return_counts=True
    )
    return everywhere[key] - own[mine]
