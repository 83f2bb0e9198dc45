"""teleflm grow."""

from pathlib import Path
from typing import Annotated

import typer


def grow(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="A checkpoint or run folder.")],
    out: Annotated[Path, typer.Argument(metavar="DST", help="Folder for the grown checkpoint.")],
    to: Annotated[
        str, typer.Option(metavar="MODEL", help="A preset, YAML file or Hugging Face folder.")
    ],
    place: Annotated[
        str,
        typer.Option(help="distance, even, stack, or the layer each new one follows: 3,3,7."),
    ] = "distance",
    ramp: Annotated[int, typer.Option(min=1, help="Steps in which the masks open.")] = 5000,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Of the new weights.")] = 0,
    data: Annotated[
        Path | None, typer.Option(help="Token store to measure layers on; else the run's own.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what is at DST.")] = False,
) -> None:
    """Grow a checkpoint by masks in width and depth: weights, both moments and all.

    MODEL's fields that are left out are the source's.

    Example: teleflm grow runs/nano grown --to nano-102b --ramp 40
    """
    from teleflm.checkpoint.load import find_checkpoint
    from teleflm.checkpoint.manifest import read_manifest
    from teleflm.config.resolve import resolve_model
    from teleflm.config.run import DataConfig
    from teleflm.training.growing import grow_checkpoint

    target = resolve_model(to, read_manifest(find_checkpoint(source)).model)
    event = grow_checkpoint(
        source,
        out,
        target,
        ramp=ramp,
        seed=seed,
        place=_parse_place(place),
        data=DataConfig(path=str(data)) if data is not None else None,
        force=force,
    )
    before, after = event.source, event.to
    assert before is not None
    for field, value in after.model_dump().items():
        old = getattr(before, field)
        if old != value:
            typer.echo(f"{field}: {old} → {value}")
    typer.echo(f"{out}: ready at step {event.step}, masks open over {event.ramp} steps")


def _parse_place(text: str) -> str | list[int]:
    if text in ("distance", "even", "stack"):
        return text
    try:
        return [int(layer) for layer in text.split(",")]
    except ValueError:
        raise typer.BadParameter(
            f"{text!r}: give distance, even, stack or a list of layers as 3,3,7",
            param_hint="--place",
        ) from None
