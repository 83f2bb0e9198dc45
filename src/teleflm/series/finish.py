"""The end of a series: exports, the summary that programs read, and the report."""

import json
import math
from pathlib import Path

import torch
import torch.distributed as dist

from teleflm.certificate.function import relative_error
from teleflm.certificate.record import FP32_BOUND
from teleflm.checkpoint.card import CardFacts
from teleflm.checkpoint.export import export
from teleflm.checkpoint.open import Opened, open_state
from teleflm.config.formats import HubKind
from teleflm.config.series import SeriesConfig
from teleflm.errors import CheckFailedError
from teleflm.files import write_whole
from teleflm.report.picture import write_picture
from teleflm.report.series import write_series_report
from teleflm.series.layout import SeriesLayout
from teleflm.series.summary import Json, evaluations, summarise

SUMMARY = "summary.json"
_CHECK_POSITIONS = 64


def finish_series(
    config: SeriesConfig, layout: SeriesLayout, group: dist.ProcessGroup | None
) -> None:
    """Export the last model, write summary.json, report.html and its main picture, report.png.

    One process does, with a group of itself where there are others.

    Raises:
        CheckFailedError: an export is not the model.
        MissingExtraError: the report's libraries are not installed; all else is done by then.
    """
    exports = [_export(layout, kind, group) for kind in config.exports]
    summary = {**summarise(config, layout), "exports": exports}
    write_whole(layout.root / SUMMARY, json.dumps(summary, indent=1, ensure_ascii=False))
    write_series_report(layout.root)
    write_picture(layout.root, layout.root / "report.png")


def _export(layout: SeriesLayout, kind: HubKind, group: dist.ProcessGroup | None) -> Json:
    """Export in one format, unless it is there, and read it back to see that it is the model."""
    last = len(layout.stages) - 1
    source, out = open_state(layout.last(last), group), layout.export(kind)
    error = _export_error(source, out, group) if out.exists() else math.inf
    if error > FP32_BOUND:  # not there, or of an earlier end of the last stage
        found = evaluations(layout, last)
        facts = CardFacts(bpb=found[-1]["bpb"] if found else {})
        export(source, out, kind, force=True, card=facts, group=group)
        error = _export_error(source, out, group)
    if error > FP32_BOUND:
        raise CheckFailedError(
            f"{out}: read back, its logits are {error:.1e} from the model's; do not use it, and "
            "report this"
        )
    return {
        "format": kind,
        "path": str(out.relative_to(layout.root)),
        "dtype": "fp32",
        "max_relative_logit_error": error,
    }


def _export_error(source: Opened, out: Path, group: dist.ProcessGroup | None) -> float:
    model = source.state.model
    longest = min(_CHECK_POSITIONS, model.max_position_embeddings)
    tokens = torch.randint(
        model.vocab_size, (2, longest), generator=torch.Generator().manual_seed(0)
    )
    return relative_error(source.network(), open_state(out, group).network(), tokens)
