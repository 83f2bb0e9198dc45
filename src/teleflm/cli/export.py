"""teleflm export."""

from pathlib import Path
from typing import Annotated, Literal

import typer


def export(
    checkpoint: Annotated[
        Path, typer.Argument(help="A run folder, a checkpoint or a Hugging Face model folder.")
    ],
    out: Annotated[Path, typer.Argument(help="Folder for the export.")],
    kind: Annotated[
        Literal["granite", "llama", "teleflm"],
        typer.Option(
            "--format",
            help="granite: weights untouched; llama: multipliers folded in; teleflm: the released "
            "layout, with its code.",
        ),
    ] = "granite",
    dtype: Annotated[Literal["fp32", "bf16"], typer.Option(help="Of the weights.")] = "fp32",
    force: Annotated[bool, typer.Option("--force", help="Replace an export at OUT.")] = False,
) -> None:
    """Write a model as a folder that transformers and the serving stacks load.

    Example: teleflm export runs/nano exports/granite --format granite
    """
    from teleflm.checkpoint.export import export as export_model
    from teleflm.checkpoint.open import open_model

    source = open_model(checkpoint)
    export_model(source, out, kind, dtype, force=force)
    typer.echo(f"{out}: {source.name} as {kind} in {dtype}")
