"""How often each domain of a mixture is read by a run of so many tokens."""

from collections.abc import Mapping
from dataclasses import dataclass

from teleflm.errors import DataError

NEARLY_NEW = 4.0
"""Epochs up to which repeated text is nearly as good as new text (arXiv 2305.16264)."""


@dataclass(frozen=True)
class Reading:
    """What a run reads of a domain.

    Attributes:
        tokens: of the domain, once.
        share: of all that is read, 0 to 1.
        read: tokens that are read of it.
        epochs: how often it is read.
    """

    tokens: int
    share: float
    read: float
    epochs: float


def readings(
    tokens: Mapping[str, int], weights: Mapping[str, float], budget: int
) -> dict[str, Reading]:
    """What a run of `budget` tokens reads of domains of so many `tokens`, by their `weights`.

    Raises DataError where the names differ, all weights are 0, or a domain without tokens has one.
    """
    if unknown := sorted(weights.keys() - tokens.keys()):
        raise DataError(f"no domain {unknown[0]!r} to have a weight; there are {_names(tokens)}")
    if silent := sorted(tokens.keys() - weights.keys()):
        raise DataError(f"domain {silent[0]!r} has no weight where others have one; give it one")
    total = sum(weights.values())
    if not total:
        raise DataError("no domain has a weight above 0, so there is nothing to read")
    found = {}
    for name, size in tokens.items():
        share = weights[name] / total
        if share and not size:
            raise DataError(f"domain {name!r} has a weight and no tokens; leave it out")
        epochs = share * budget / size if size else 0.0
        found[name] = Reading(size, share, share * budget, epochs)
    return found


def _names(names: Mapping[str, object]) -> str:
    return ", ".join(map(repr, names))
