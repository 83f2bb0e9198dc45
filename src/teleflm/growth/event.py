"""The lineage: how a model came to be, one event for each run and growth."""

from typing import Literal

from pydantic import ConfigDict, Field

from teleflm.config.base import Strict
from teleflm.config.model import ModelConfig


class Event(Strict):
    """One event of a lineage.

    Attributes:
        operator: `init` (fresh weights), `continue` (a run from a checkpoint as it is) or the
            growth operator, `mask`.
        source: the model before, None for `init`; `to` the model after.
        step: the step at which it happened, `tokens`, `sequences` and `flops` what had been
            read and spent by then.
        seed: of the new weights.
        ramp: steps in which the masks of a growth open; 0 where there are none.
        layers: for each layer before a growth, its index after it.
        parent: SHA-256 of the manifest of the checkpoint that it started from.
    """

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    operator: Literal["init", "continue", "mask"]
    source: ModelConfig | None = Field(
        default=None, validation_alias="from", serialization_alias="from"
    )
    to: ModelConfig
    step: int = 0
    tokens: int = 0
    sequences: int = 0
    flops: int = 0
    seed: int = 0
    ramp: int = 0
    layers: tuple[int, ...] = ()
    parent: str | None = None


Lineage = tuple[Event, ...]


def last_growth(lineage: Lineage) -> Event | None:
    """The newest growth of a lineage: the one whose masks may still be open."""
    return next((event for event in reversed(lineage) if event.operator == "mask"), None)
