"""summary.json of a series folder: what the series did, one object for each thing it did.

Every figure may be null and every list empty: a series that has only begun has a report too.
"""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from teleflm.report.records import read_object

Fields = dict[str, Any]
"""A model in Hugging Face's field names."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, populate_by_name=True, serialize_by_alias=True)


class Stage(_Part):
    """One stage of training. `tokens`, `flops` and `seconds` are of this stage alone. Steps count
    through the lineage: `first_step` is the one after which the stage begins. `run_dir` is relative
    to the series folder.

    Losses are held-out nats per token and `bpb_*` bits per byte, at the stage's first moment (after
    the growth that it begins with, if any) and at its end.
    """

    name: str
    run_dir: str
    model: Fields
    parameters: int | None = None
    first_step: int | None = None
    last_step: int | None = None
    tokens: int | None = None
    flops: float | None = None
    loss_before: float | None = None
    loss_after: float | None = None
    bpb_before: dict[str, float | None] = {}
    bpb_after: dict[str, float | None] = {}
    seconds: float | None = None


class FunctionFigures(_Part):
    """See `teleflm.certificate.record.FunctionError`."""

    max_relative_logit_error: float | None = None
    dtype: str = "float64"
    float32_max_relative_logit_error: float | None = None


class TrajectoryFigures(_Part):
    """See `teleflm.certificate.record.TrajectoryError`."""

    steps: int | None = None
    max_relative_loss_difference: float | None = None


class Bounds(_Part):
    """What each figure of a certificate had to stay within."""

    function: float | None = None
    float32_function: float | None = None
    trajectory: float | None = None


class CertificateFigures(_Part):
    """See `teleflm.certificate.record.Certificate`."""

    function: FunctionFigures = FunctionFigures()
    trajectory: TrajectoryFigures | None = None
    bounds: Bounds = Bounds()
    exact: bool | None = None


class Growth(_Part):
    """A growth from one stage's model to another's, both by the stage's name.

    `layers` has for each layer of the parent its index in the child, `checkpoint` the grown model's
    path relative to the series folder; the losses are held-out nats per token just before and just
    after.
    """

    source: str = Field(alias="from")
    to: str
    step: int
    ramp: int | None = None
    layers: list[int] = []
    checkpoint: str | None = None
    certificate: CertificateFigures | None = None
    loss_before: float | None = None
    loss_after: float | None = None
    seconds: float | None = None


class Compute(_Part):
    """FLOPs of all stages, and of the largest model from scratch on the same tokens."""

    series_flops: float | None = None
    scratch_flops: float | None = None
    ratio: float | None = None


class Export(_Part):
    """One export; `path` is relative to the series folder."""

    format: str
    path: str
    dtype: str | None = None
    max_relative_logit_error: float | None = None


class Sample(_Part):
    """A prompt and its continuation by the model at the end of a stage."""

    stage: str
    prompt: str
    text: str


class LineageEvent(_Part):
    """See `teleflm.growth.event.Event`."""

    operator: str
    source: Fields | None = Field(default=None, alias="from")
    to: Fields
    step: int | None = None
    tokens: int | None = None
    seed: int | None = None
    ramp: int | None = None


class Domain(_Part):
    """What the token stores of a domain hold; `share` is its weight in the mixture."""

    documents: int | None = None
    tokens: int | None = None
    bytes: int | None = None
    held_out_tokens: int | None = None
    share: float | None = None


class Data(_Part):
    """The token stores."""

    vocab_size: int | None = None
    domains: dict[str, Domain] = {}


class Summary(_Part):
    """The whole file."""

    title: str = "A series"
    seconds: float | None = None
    stages: list[Stage] = []
    growths: list[Growth] = []
    compute: Compute = Compute()
    exports: list[Export] = []
    samples: list[Sample] = []
    lineage: list[LineageEvent] = []
    data: Data = Data()


def read_summary(series_dir: Path) -> Summary:
    """The summary of a series folder.

    Raises:
        DataError: there is none, or it is damaged; the message names the key.
    """
    return read_object(
        series_dir / "summary.json",
        Summary,
        "a series writes it, so name the folder of one",
        "run the series again",
    )
