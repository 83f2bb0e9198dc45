"""Certificates of what lies on disk."""

import sys
from pathlib import Path

import torch

from teleflm.certificate.certify import (
    Certificate,
    certify,
    function_error,
    random_tokens,
)
from teleflm.checkpoint.load import find_checkpoint, load_checkpoint, open_model
from teleflm.checkpoint.manifest import manifest_digest
from teleflm.checkpoint.source import ModelSource
from teleflm.growth.event import newest_growth
from teleflm.model.init import build_model


def certify_paths(source: Path, grown: Path) -> Certificate:
    """Certify `grown` against the `source` that it came from.

    Two checkpoints are compared in function and trajectory. A Hugging Face folder has no moments,
    so with one of them it is the function alone, of the ordinary models.

    Raises:
        CheckpointError: one of them is damaged, or they are not of one family.
    """
    if any((path / "config.json").is_file() for path in (source, grown)):
        return _certify_models(open_model(source), open_model(grown))
    parent_folder, child_folder = find_checkpoint(source), find_checkpoint(grown)
    manifest, parent = load_checkpoint(parent_folder)
    _, child = load_checkpoint(child_folder)
    growth = newest_growth(child.lineage)
    if not growth or growth[0].parent != manifest_digest(parent_folder):
        print(f"{child_folder}: by its lineage not grown from {parent_folder}", file=sys.stderr)
    elif child.step != growth[0].step:
        print(
            f"{child_folder}: trained {child.step - growth[0].step} steps since it was grown; the "
            "growth itself is certified on the checkpoint that `teleflm grow` wrote",
            file=sys.stderr,
        )
    return certify(parent, child, optimizer=manifest.config.optimizer if manifest.config else None)


def _certify_models(parent: ModelSource, child: ModelSource) -> Certificate:
    tokens = random_tokens(parent.model, child.model, seed=0)
    (before, before32), (after, after32) = (
        [build_model(source.model, source.state, dtype) for dtype in (torch.float64, torch.float32)]
        for source in (parent, child)
    )
    function = function_error((before, after), (before32, after32), tokens)
    return Certificate(function, trajectory=None)
