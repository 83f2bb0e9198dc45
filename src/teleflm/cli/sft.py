"""teleflm sft."""

from pathlib import Path
from typing import Annotated

import typer

from teleflm.parallel.launcher import rank


def sft(
    run: Annotated[Path, typer.Argument(metavar="RUN.yaml", help="The run's description.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="key=value", help="Settings laid over it.")
    ] = None,
) -> None:
    """Tune a checkpoint on conversations, so that it answers.

    It is `train` from a checkpoint (start_from) on a chat store (data prepare --chat): a run folder
    that exists is gone on with, and torchrun starts it on many ranks.

    Example: teleflm sft examples/sft.yaml start_from=runs/nano data.path=chat run_dir=runs/sft
    """
    from teleflm.config.base import apply_overrides, read_yaml
    from teleflm.training.conversations import answers_told, resolve_tuning
    from teleflm.training.loop import train

    config = resolve_tuning(apply_overrides(read_yaml(run), overrides or ()), str(run))
    folder = train(config)
    if rank() == 0:
        if told := answers_told(folder):
            typer.echo(told, err=True)
        typer.echo(folder)
