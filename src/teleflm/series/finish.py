"""The end of a series: exports, the summary that programs read, and the report."""

import json

import torch

from teleflm.certificate.certify import relative_error
from teleflm.checkpoint.card import CardFacts
from teleflm.checkpoint.export import export
from teleflm.checkpoint.load import open_model
from teleflm.checkpoint.source import ModelSource
from teleflm.config.huggingface import ExportKind
from teleflm.config.series import SeriesConfig
from teleflm.files import write_whole
from teleflm.model.init import build_model
from teleflm.model.network import TeleFLM
from teleflm.report.picture import write_picture
from teleflm.report.series import write_series_report
from teleflm.series.layout import SeriesLayout
from teleflm.series.summary import Json, evaluations, stored_certificates, summarise

SUMMARY = "summary.json"
_CHECK_POSITIONS = 64


def finish_series(config: SeriesConfig, layout: SeriesLayout) -> None:
    """Export the last model, write summary.json, report.html and its main picture, report.png.

    Raises:
        MissingExtraError: the report's libraries are not installed; all else is done by then.
    """
    exports = [_export(layout, kind) for kind in config.exports]
    summary = {**summarise(config, layout), "exports": exports}
    write_whole(layout.root / SUMMARY, json.dumps(summary, indent=1, ensure_ascii=False))
    write_series_report(layout.root)
    write_picture(layout.root, layout.root / "report.png")


def _export(layout: SeriesLayout, kind: ExportKind) -> Json:
    """Export in one format (unless it is there) and read it back to see that it is the model."""
    last = len(layout.stages) - 1
    source, out = open_model(layout.last(last)), layout.export(kind)
    if not out.exists():
        found = evaluations(layout, last)
        facts = CardFacts(
            bpb=found[-1]["bpb"] if found else {}, certificates=stored_certificates(layout)
        )
        export(source, out, kind, card=facts)
    longest = min(_CHECK_POSITIONS, source.model.max_position_embeddings)
    tokens = torch.randint(
        source.model.vocab_size, (2, longest), generator=torch.Generator().manual_seed(0)
    )
    error = relative_error(_network(source), _network(open_model(out)), tokens)
    return {
        "format": kind,
        "path": str(out.relative_to(layout.root)),
        "dtype": "fp32",
        "max_relative_logit_error": error,
    }


def _network(source: ModelSource) -> TeleFLM:
    return build_model(source.model, source.state, torch.float32)
