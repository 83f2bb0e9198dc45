"""What `teleflm eval` found, for the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from teleflm.cli.corpus import printable
from teleflm.report.evaluation import rows
from teleflm.report.words import decimal

Json = Mapping[str, Any]


def told(name: str, facts: Json) -> str:
    """One model: its figures, and bits per byte by position where windows are long enough."""
    lines = [printable(name), *_lines(["", ""], rows({name: facts}))]
    bands = facts["positions"]
    if len(bands) > 1:
        lines.append("by position, nats per token:")
        lines += [
            f"  {band['first']:>7,} to {band['last']:>7,}  {decimal(band['loss'])}"
            for band in bands
        ]
    if facts["conversations"] is not None:
        read = f"{facts['conversations']['read']:,} conversations"
        lines.append(f"{facts['tokens']:,} tokens of replies in {read}, {facts['dtype']}")
        lines += _not_read(facts)
    elif facts["tokens"]:
        lines.append(
            f"{facts['tokens']:,} tokens of {facts['bytes']:,} bytes, {facts['windows']} windows "
            f"of {facts['sequence_length']:,}, {facts['dtype']}"
        )
    return "\n".join(lines)


def _not_read(facts: Json) -> list[str]:
    """What of conversations was not."""
    read = facts["conversations"]
    if read is None or not read["cut"] + read["left_out"]:
        return []
    return [
        f"conversations longer than {facts['sequence_length']:,} tokens:",
        f"  {read['cut']:,} were cut behind their last reply that fits",
        f"  {read['left_out']:,} without one were left out",
    ]


def comparison(models: Mapping[str, Json]) -> str:
    """Models beside each other."""
    names = [f"({index})" for index, _ in enumerate(models, start=1)]
    legend = [f"{mark} {printable(name)}" for mark, name in zip(names, models, strict=True)]
    # All read the same text.
    left = _not_read(next(iter(models.values())))
    return "\n".join([*legend, *_lines(["", "", *names], rows(models)), *left])


def _lines(head: Sequence[str], found: Sequence[Any]) -> list[str]:
    table = [[row.group, row.title, *map(str, row.figures)] for row in found]
    cells = [list(map(printable, row)) for row in ([head] if any(head) else []) + table]
    if not cells:
        return []
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    return [
        "  ".join(
            [cell.ljust(width) for cell, width in zip(row[:2], widths, strict=False)]
            + [cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
        ).rstrip()
        for row in cells
    ]
