"""teleflm train."""

from pathlib import Path
from typing import Annotated

import typer

from teleflm.parallel.launcher import rank


def train(
    run: Annotated[Path, typer.Argument(metavar="RUN.yaml", help="The run's description.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="key=value", help="Settings laid over it.")
    ] = None,
) -> None:
    """Train one stage; a run folder that exists is gone on with.

    Example: teleflm train examples/nano.yaml data.path=store run_dir=runs/nano training.steps=200
    """
    from teleflm.config.base import apply_overrides, read_yaml
    from teleflm.training.loop import train as train_run
    from teleflm.training.start import resolve_config

    config = resolve_config(apply_overrides(read_yaml(run), overrides or ()), str(run))
    folder = train_run(config)
    if rank() == 0:
        typer.echo(folder)
