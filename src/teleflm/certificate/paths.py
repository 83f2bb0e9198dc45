"""Certificates of what lies on disk, by one process or by many ranks."""

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from teleflm.certificate.bench import job_of, on_mesh, streamed
from teleflm.certificate.certify import certify, certify_on, growths_since
from teleflm.certificate.record import Certificate
from teleflm.certificate.trajectory import sharpened
from teleflm.checkpoint.open import Opened, open_state
from teleflm.config.model import ModelConfig
from teleflm.config.run import OptimizerConfig, ParallelConfig
from teleflm.growth.event import newest_growth
from teleflm.parallel.choose import layout_of
from teleflm.parallel.launcher import local_count
from teleflm.parallel.layout import Layout
from teleflm.parallel.memory import memory
from teleflm.parallel.mesh import build_mesh
from teleflm.parallel.ranks import Ranks

# The trajectory has both models in memory: as stored (12), with weights, moments and gradients in
# float64 (32), clones once more as they were before they were told apart (24), and some to spare.
_BYTES_A_PARAMETER = 80
# A pipeline keeps what it gathers of its stages until a step is done, and gradients as large.
_BYTES_GATHERED = 16


def certify_paths(
    source: Path,
    grown: Path,
    parallel: ParallelConfig | None = None,
    device: torch.device | None = None,
) -> Certificate:
    """Certify `grown` against the `source` that it came from; every rank calls this.

    Function, tensors and trajectory are compared. Of a Hugging Face folder that was not grown, it
    is the function alone; models that do not fit into the ranks' memory are read layer by layer,
    and have no trajectory.

    Args:
        source, grown: checkpoints, run folders or Hugging Face folders.
        parallel: how the trajectory is laid out on the ranks; data-parallel over all of them
            unless given.
        device: where a rank of many trains; the CPU unless given.

    Raises:
        CheckpointError: one of them is damaged, or they are not of one family.
        ConfigError: the layout is not one of these ranks, or one of the models does not go into it.
    """
    ranks = Ranks()
    parent, child = open_state(source), open_state(grown)
    models = parent.state.model, child.state.model
    job = job_of(*models, parallel or ParallelConfig(), ranks)
    layout = layout_of(job, ranks.count)
    lineages = parent.state.lineage, child.state.lineage
    has_moments = bool(growths_since(*lineages)) or all(
        each[-1].operator != "import" for each in lineages
    )
    if has_moments and ranks.first:
        _tell_relation(source, grown, parent, child)
    if device is None or not ranks.many:
        device = torch.device("cpu")
    if not (has_moments and _fits(models, layout, ranks, device)):
        return certify_on(streamed(ranks, layout), parent.state, child.state)
    optimizer = parent.config.optimizer if parent.config is not None else OptimizerConfig()
    document_mask = parent.config is not None and parent.config.data.document_mask
    if not ranks.many:
        states = parent.state.in_memory(), child.state.in_memory()
        return certify(*states, optimizer=optimizer, document_mask=document_mask)
    mesh = build_mesh(layout, ranks.rank, device)
    bench = on_mesh(ranks, mesh, job, sharpened(optimizer, parent.state.model))
    bench = replace(bench, document_mask=document_mask)
    return certify_on(bench, parent.state, child.state)


def _fits(
    models: Sequence[ModelConfig], layout: Layout, ranks: Ranks, device: torch.device
) -> bool:
    """Whether there is memory for the trajectory, on every rank."""
    held = sum(memory(model, layout, ranks.rank, 1).parameters for model in models)
    needed = _BYTES_A_PARAMETER * held
    if layout.pp > 1:
        needed += _BYTES_GATHERED * held * layout.dp_shard
    fits = not ranks.largest(int(needed > _available_memory(device)))
    most = ranks.largest(needed)
    if not fits and ranks.first:
        print(
            f"the trajectory needs {most / 1e9:,.0f} GB of memory"
            f"{' on a rank' if ranks.many else ''}, more than is free: function and tensors are "
            "certified, layer by layer",
            file=sys.stderr,
        )
    return fits


def _tell_relation(source: Path, grown: Path, parent: Opened, child: Opened) -> None:
    growth = newest_growth(child.state.lineage)
    if not growth or growth[0].parent != parent.digest:
        print(f"{grown}: by its lineage not grown from {source}", file=sys.stderr)
    elif child.state.step != growth[0].step:
        print(
            f"{grown}: trained {child.state.step - growth[0].step} steps since it was grown; the "
            "growth itself is certified on the checkpoint that `teleflm grow` wrote",
            file=sys.stderr,
        )


def _available_memory(device: torch.device) -> int:
    """Bytes that this process can have of its GPU, or without swapping of its machine, shared with
    the other ranks there; without Linux's figure, what nobody uses."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    sharing = local_count()
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // sharing
    (kilobytes,) = (line.split()[1] for line in lines if line.startswith("MemAvailable:"))
    return int(kilobytes) * 1024 // sharing
