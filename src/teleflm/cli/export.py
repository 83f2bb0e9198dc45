"""teleflm export."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from teleflm.config.formats import ExportDtype, ExportKind


def export(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            metavar="SRC", help="A run folder, a checkpoint or a Hugging Face model folder."
        ),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the export.")],
    kind: Annotated[
        ExportKind | None,
        typer.Option(
            "--format",
            help="granite: weights untouched; teleflm: the released layout, with its code; gguf: "
            "a file for llama.cpp; the others: multipliers folded into the weights. By default "
            "granite, or the first that can hold the model.",
        ),
    ] = None,
    dtype: Annotated[
        ExportDtype, typer.Option(help="Precision of the weights; fp16 and q8_0 with gguf only.")
    ] = "fp32",
    no_tokenizer: Annotated[
        bool, typer.Option("--no-tokenizer", help="Leave the tokenizer and special ids out.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an export at OUT.")] = False,
) -> None:
    """Write a model as a folder that transformers, llama.cpp and the serving stacks load.

    It is read and written piece by piece, so it may be larger than the memory. Where it was
    interrupted, the same command goes on.

    Example: teleflm export runs/nano exports/granite --format granite
    """
    from teleflm.checkpoint.export import export as export_model
    from teleflm.checkpoint.export import export_bytes
    from teleflm.checkpoint.formats import FORMATS
    from teleflm.checkpoint.open import open_state
    from teleflm.config.families import formats_of
    from teleflm.data.progress import byte_progress

    source = open_state(checkpoint)
    if no_tokenizer:
        source = replace(source, tokenizer=None)
    if kind is None:
        held = formats_of(source.state.model)
        kind = held[0] if held else "granite"
    FORMATS[kind].check_dtype(dtype)
    with byte_progress("exporting", export_bytes(source.state, kind, dtype)) as tell:
        export_model(source, out, kind, dtype, force=force, tell=tell)
    for note in FORMATS[kind].notes(source, dtype):
        typer.echo(f"note: {note}", err=True)
    typer.echo(f"{out}: {source.name} as {kind} in {dtype}")
