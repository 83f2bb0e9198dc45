"""Certificates of what lies on disk."""

import os
import sys
from pathlib import Path

import torch.distributed as dist

from teleflm.certificate.certify import certify, certify_streamed, growths_since
from teleflm.certificate.record import Certificate
from teleflm.checkpoint.open import Opened, open_state
from teleflm.growth.event import newest_growth
from teleflm.model.axes import parameter_count

# The trajectory has both models in memory: as stored (12), with weights, moments and gradients in
# float64 (32), clones once more as they were before they were told apart (24), and some to spare.
_BYTES_A_PARAMETER = 80


def certify_paths(source: Path, grown: Path, group: dist.ProcessGroup | None = None) -> Certificate:
    """Certify `grown` against the `source` that it came from.

    Function, tensors and trajectory are compared. Of a Hugging Face folder that was not grown, it
    is the function alone; models that do not fit into memory are read layer by layer, and have no
    trajectory.

    Args:
        source, grown: checkpoints, run folders or Hugging Face folders.
        group: of this process alone, where `torch.distributed` is initialised.

    Raises:
        CheckpointError: one of them is damaged, or they are not of one family.
    """
    parent, child = open_state(source, group), open_state(grown, group)
    lineages = parent.state.lineage, child.state.lineage
    if not growths_since(*lineages) and any(each[-1].operator == "import" for each in lineages):
        return certify_streamed(parent.state, child.state)
    _tell_relation(source, grown, parent, child)
    needed = _BYTES_A_PARAMETER * sum(parameter_count(each.state.model) for each in (parent, child))
    if needed > _available_memory():
        print(
            f"the trajectory needs {needed / 1e9:,.0f} GB of memory, more than is free: function "
            "and tensors are certified, layer by layer",
            file=sys.stderr,
        )
        return certify_streamed(parent.state, child.state)
    optimizer = parent.config.optimizer if parent.config is not None else None
    return certify(parent.state.in_memory(), child.state.in_memory(), optimizer=optimizer)


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


def _available_memory() -> int:
    """Bytes that can be had without swapping; without Linux's figure, what nobody uses."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    (kilobytes,) = (line.split()[1] for line in lines if line.startswith("MemAvailable:"))
    return int(kilobytes) * 1024
