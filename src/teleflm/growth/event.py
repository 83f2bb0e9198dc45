"""The lineage: how a model came to be, one event for each run, growth, skip and roll back."""

from typing import Literal, get_args

from pydantic import ConfigDict, Field

from teleflm.config.base import Strict
from teleflm.config.growth import Operator, Symmetry
from teleflm.config.model import ModelConfig
from teleflm.config.run import Precision

OPERATORS: tuple[Operator, ...] = get_args(Operator)
AnyOperator = Literal["init", "import", "continue", Operator, "skip", "roll_back", "precision"]

IN_WORDS: dict[str, str] = {
    "init": "new weights",
    "import": "imported",
    "continue": "trained further",
    "mask": "grown by masks",
    "clone": "grown by clones",
    "zero": "grown behind zeros",
    "copy": "grown by copies of layers, which is another function",
    "skip": "a step skipped",
    "roll_back": "back to a checkpoint",
    "precision": "on in another precision",
}
"""What happened, by the operator."""


class CertifiedFigures(Strict):
    """What `teleflm verify` measured of a growth, see `teleflm.certificate.record`."""

    max_relative_logit_error: float
    dtype: str
    steps: int | None
    max_relative_loss_difference: float | None
    exact: bool


class Event(Strict):
    """One event of a lineage.

    Attributes:
        operator: `init` (fresh weights), `import` (weights from elsewhere), `continue` (a run from
            a checkpoint as it is), a growth operator (see `growth/operators.py`; a growth by
            several is an event for each); within a run `skip` (the update to `step` was not
            taken), `roll_back` (the run went back to its checkpoint of `step`) or `precision` (it
            went on in another one).
        source: the model before, None for `init`; `to` the model after.
        step: the step at which it happened, `tokens`, `sequences` and `flops` what had been
            read and spent by then, also on steps that were skipped or taken back.
        seed: of the new weights.
        ramp: steps in which the masks of a growth open; 0 where there are none.
        layers: for each layer before a growth, its index after it.
        copies: of a `copy`, for each layer after it the layer before that it holds.
        symmetry: of a `clone`, how the consumers of equal entries are made to differ, and
            `imbalance` by how much (see `growth/shares.py`).
        parent: SHA-256 of the manifest of the checkpoint that it started from; of an `import`, of
            the checksums of the folder's files.
        certificate: of a growth that was certified before anybody went on from it; the newest of
            its events has it.
        batches: of a skip or roll back, the batches that were read and left no trace.
        reason: of a skip or roll back, in words.
        precision: of a change of precision, the new one.
    """

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    operator: AnyOperator
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
    copies: tuple[int, ...] = ()
    symmetry: Symmetry | None = None
    imbalance: float = 0.0
    parent: str | None = None
    certificate: CertifiedFigures | None = None
    batches: int = 0
    reason: str | None = None
    precision: Precision | None = None

    @property
    def starts_run(self) -> bool:
        """Whether a run begins with it, or it happened within one."""
        return self.operator not in ("skip", "roll_back", "precision")

    @property
    def grown_by(self) -> Operator:
        """The operator of a growth."""
        assert self.operator in OPERATORS, "only growths have an operator that grows"
        return self.operator

    @property
    def is_growth(self) -> bool:
        """Whether it made the model larger."""
        return self.operator in OPERATORS


Lineage = tuple[Event, ...]


def last_masks(lineage: Lineage) -> Event | None:
    """The newest growth of a lineage by masks, which may still be open."""
    return next((event for event in reversed(lineage) if event.operator == "mask"), None)


def newest_growth(lineage: Lineage) -> tuple[Event, ...]:
    """The newest growth of a lineage, an event for each of its operators; empty where it never
    grew."""
    growths = [event for event in lineage if event.is_growth]
    return tuple(event for event in growths if event.step == growths[-1].step)


def run_start(lineage: Lineage) -> Event:
    """The event that the newest run of a lineage began with."""
    return next(event for event in reversed(lineage) if event.starts_run)
