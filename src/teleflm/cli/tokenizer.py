"""teleflm tokenizer: train, report."""

from pathlib import Path
from typing import Annotated

import typer

from teleflm.cli.corpus import CORPUS_HELP, DOMAIN_BY_HELP, TEXT_KEY_HELP
from teleflm.cli.tokenizer_report import TwoLists, report

app = typer.Typer(no_args_is_help=True, help="Train a tokenizer, and compare tokenizers.")
app.command(cls=TwoLists)(report)


@app.command()
def train(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="PATH", help=CORPUS_HELP),
    ],
    vocab_size: Annotated[
        int, typer.Option(max=2**31 - 1, help="Tokens in the vocabulary, at least 324.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for tokenizer.json and its configuration.")],
    pre_tokenizer: Annotated[
        str, typer.Option(help="How a text is cut into words: qwen2, smollm or deepseek-v3.")
    ] = "qwen2",
    sample: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Learn from so much of the text: 4GB.")
    ] = None,
    weight: Annotated[
        list[str] | None,
        typer.Option(metavar="DOMAIN=W", help="A domain's weight in the sample; may be repeated."),
    ] = None,
    text_key: Annotated[str, typer.Option(help=TEXT_KEY_HELP)] = "text",
    domain_by: Annotated[str, typer.Option(help=DOMAIN_BY_HELP)] = "record",
    force: Annotated[bool, typer.Option("--force", help="Replace a tokenizer in OUT.")] = False,
) -> None:
    """Train a byte-level BPE tokenizer.

    Example: teleflm tokenizer train --vocab-size 8192 --out tokenizer corpus/
    """
    from teleflm.data.find import find_corpus
    from teleflm.data.progress import byte_progress
    from teleflm.data.sampling import Sample, parse_size, parse_weights
    from teleflm.data.sources import Reading
    from teleflm.data.tokenizer_training import train_tokenizer
    from teleflm.errors import DataError

    if weight and sample is None:
        raise DataError("--weight divides a sample among domains: say how large with --sample")
    asked = Sample(parse_size(sample), parse_weights(weight or [])) if sample else None
    # A sample's corpus is measured first.
    passes = 2 if asked else 1
    with byte_progress("reading, then learning", passes * find_corpus(paths).bytes) as progress:
        tokenizer = train_tokenizer(
            paths,
            vocab_size,
            out,
            cut=pre_tokenizer,
            sample=asked,
            reading=Reading(text_key, domain_by=domain_by),
            force=force,
            progress=progress,
        )
    if tokenizer.vocab_size < vocab_size:
        typer.echo(
            f"note: the corpus has repeated pairs for a vocabulary of {tokenizer.vocab_size} only, "
            f"not {vocab_size}; more text gives more",
            err=True,
        )
    typer.echo(f"{out}: {tokenizer.vocab_size} tokens")
