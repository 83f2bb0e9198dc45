"""teleflm tokenizer: train."""

from pathlib import Path
from typing import Annotated

import typer

from teleflm.cli.corpus import CORPUS_HELP, TEXT_KEY_HELP

app = typer.Typer(no_args_is_help=True, help="Train a tokenizer.")


@app.callback()
def _group() -> None:
    """Train a tokenizer."""
    # A group of one command would otherwise lose the command's name.


@app.command()
def train(
    paths: Annotated[
        list[Path],
        typer.Argument(help=CORPUS_HELP),
    ],
    vocab_size: Annotated[
        int, typer.Option(max=2**31 - 1, help="Tokens in the vocabulary, at least 260.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for tokenizer.json and its configuration.")],
    text_key: Annotated[str, typer.Option(help=TEXT_KEY_HELP)] = "text",
    force: Annotated[bool, typer.Option("--force", help="Replace a tokenizer in OUT.")] = False,
) -> None:
    """Train a byte-level BPE tokenizer.

    Example: teleflm tokenizer train --vocab-size 8192 --out tokenizer corpus/
    """
    from teleflm.data.find import find_corpus
    from teleflm.data.progress import byte_progress
    from teleflm.data.sources import Reading
    from teleflm.data.tokenizer import train_tokenizer

    with byte_progress("reading, then learning", find_corpus(paths).bytes) as progress:
        tokenizer = train_tokenizer(
            paths, vocab_size, out, reading=Reading(text_key), force=force, progress=progress
        )
    if tokenizer.vocab_size < vocab_size:
        typer.echo(
            f"note: the corpus has repeated pairs for a vocabulary of {tokenizer.vocab_size} only, "
            f"not {vocab_size}; more text gives more",
            err=True,
        )
    typer.echo(f"{out}: {tokenizer.vocab_size} tokens")
