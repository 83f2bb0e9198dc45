"""teleflm series."""

from pathlib import Path
from typing import Annotated

import typer

from teleflm.parallel.launcher import rank


def series(
    path: Annotated[Path, typer.Argument(metavar="SERIES.yaml", help="The stages.")],
) -> None:
    """Run all stages: train, grow, certify, train …; go on where it was stopped.

    Example: teleflm series examples/nano-series.yaml
    """
    from teleflm.config.series import load_series
    from teleflm.series.run import run_series

    folder = run_series(load_series(path))
    if rank() == 0:
        typer.echo(folder / "report.html")
