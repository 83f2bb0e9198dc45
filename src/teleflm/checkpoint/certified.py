"""The certificate of a growth, kept in the folder of the grown checkpoint.

It is measured when the checkpoint is finished already, so it stands beside the manifest; whoever
goes on from there takes it into the lineage, and so it reaches every later checkpoint and export.
"""

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from teleflm.checkpoint.manifest import Manifest, manifest_digest
from teleflm.files import write_whole
from teleflm.growth.event import CertifiedFigures, Lineage

CERTIFICATE = "certificate.json"


def is_growth(manifest: Manifest) -> bool:
    """Whether a checkpoint is what a growth made, not yet trained on."""
    newest = manifest.lineage[-1]
    return newest.is_growth and newest.step == manifest.step


def keep_certificate(folder: Path, figures: dict[str, Any]) -> dict[str, Any]:
    """Keep what was measured of a grown checkpoint in its folder.

    Returns:
        What was written: the figures and `checkpoint`, the SHA-256 of the manifest.
    """
    kept = {**figures, "checkpoint": manifest_digest(folder)}
    write_whole(folder / CERTIFICATE, json.dumps(kept, indent=1))
    return kept


def kept_certificate(folder: Path) -> dict[str, Any] | None:
    """The certificate in a checkpoint's folder; None where there is none of this checkpoint."""
    try:
        kept = json.loads((folder / CERTIFICATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    is_own = isinstance(kept, dict) and kept.get("checkpoint") == manifest_digest(folder)
    return kept if is_own else None


def certified_lineage(folder: Path, manifest: Manifest) -> Lineage:
    """A checkpoint's lineage, with the certificate in its folder at the newest event."""
    *before, newest = manifest.lineage
    kept = kept_certificate(folder) if is_growth(manifest) else None
    if kept is None:
        return manifest.lineage
    trajectory = kept.get("trajectory") or {}
    try:
        figures = CertifiedFigures(
            max_relative_logit_error=kept["function"]["max_relative_logit_error"],
            dtype=kept["function"]["dtype"],
            steps=trajectory.get("steps"),
            max_relative_loss_difference=trajectory.get("max_relative_loss_difference"),
            exact=kept["exact"],
        )
    except (KeyError, TypeError, ValidationError):
        return manifest.lineage
    return (*before, newest.model_copy(update={"certificate": figures}))
