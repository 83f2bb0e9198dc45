"""What `plan` and `dryrun` wrote of a job, read again, and what their pages have in common."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict

from teleflm.parallel.memory import size_text
from teleflm.report.job_figures import KINDS, draw_memory
from teleflm.report.page import Chart, chart
from teleflm.report.records import read_object


class Part(BaseModel):
    """A JSON object, of which more may be there than is asked for."""

    model_config = ConfigDict(frozen=True)


class LayoutFigures(Part):
    """Ranks along each axis."""

    tp: int
    pp: int
    dp: int

    def __str__(self) -> str:
        return f"tp {self.tp} · pp {self.pp} · dp {self.dp}"


_Record = TypeVar("_Record", bound=Part)


def read_record(path: Path, kind: type[_Record]) -> _Record:
    """What a verb wrote with `--out`; see `read_object`."""
    verb = f"teleflm {path.stem}"
    writer = f"{verb} with --out {path.parent} writes it"
    return read_object(path, kind, writer, f"run {verb} again")


def memory_chart(ranks: Sequence[dict[str, int]], limit: int | None) -> Chart:
    """Memory by pipeline rank and kind.

    Args:
        ranks: bytes of each kind on the first rank of each pipeline rank.
        limit: bytes of a device, where one is known.
    """
    totals = [sum(kinds[kind] for kind in KINDS) for kinds in ranks]
    most = max(range(len(ranks)), key=lambda rank: totals[rank])
    parts = ", ".join(f"{kind} {size_text(ranks[most][kind])}" for kind in KINDS)
    of = f", of {size_text(limit)} that a device has" if limit is not None else ""
    alt = (
        f"Bars of the memory of {len(ranks)} pipeline ranks. Rank {most} needs the most, "
        f"{size_text(totals[most])}{of}: {parts}. The least is {size_text(min(totals))}."
    )
    return chart("memory", (11.0, 4.4), alt, lambda axes: draw_memory(axes, ranks, limit))
