"""teleflm data score: train."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from teleflm.cli.corpus import CORPUS_HELP, TEXT_KEY_HELP

app = typer.Typer(no_args_is_help=True, help="Train the score that a recipe's quality step uses.")


@app.callback()
def _group() -> None:
    """Train the score that a recipe's quality step uses."""
    # A group of one command would otherwise lose the command's name.


class _ManyAgainst(TyperCommand):
    """Takes `--against A B`: an option has one value, and B would be learnt as good text."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        spread: list[str] = []
        against = False
        for argument in args:
            if argument.startswith("-"):
                against = argument == "--against" or argument.startswith("--against=")
                if argument != "--against":
                    spread.append(argument)
            else:
                spread += ["--against", argument] if against else [argument]
        return super().parse_args(ctx, spread)


@app.command(cls=_ManyAgainst)
def train(
    good: Annotated[list[Path], typer.Argument(metavar="GOOD", help=f"Good text: {CORPUS_HELP}")],
    against: Annotated[list[Path], typer.Option(help="Bad text, as many paths as you like.")],
    out: Annotated[Path, typer.Option(help="File for the score, e.g. score.safetensors.")],
    held_out: Annotated[
        float, typer.Option(min=0.01, max=0.9, help="Share of the texts kept apart to measure on.")
    ] = 0.1,
    text_key: Annotated[str, typer.Option(help=TEXT_KEY_HELP)] = "text",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a file at OUT.")] = False,
) -> None:
    """Train a score on good texts against bad ones, and say how well it tells them apart.

    Each path is a source, and all count alike. Give several of both kinds: from one, its style is
    learnt.

    Example: teleflm data score train books/ wiki.jsonl --against spam.jsonl --out score.safetensors
    """
    import json as json_module

    from teleflm.cleaning.score import train as train_score
    from teleflm.errors import DataError

    if out.exists() and not force:
        raise DataError(f"{out}: exists; give --force to replace it")
    sides = [{str(path): _texts(path, text_key) for path in paths} for paths in (good, against)]
    if twice := sides[0].keys() & sides[1].keys():
        raise DataError(f"{min(twice)}: given as good and as bad text; leave one out")
    figures = train_score(sides[0], sides[1], out, held_out)
    if json:
        typer.echo(json_module.dumps({"out": str(out), **figures._asdict()}, indent=2))
        return
    for script in figures.left_out_scripts:
        typer.echo(f"note: texts in script '{script}' are on one side only; left out", err=True)
    by_script = ", ".join(f"{name} {auc:.4f}" for name, auc in figures.auc_by_script.items())
    typer.echo(
        f"{out}: AUC {figures.auc:.4f} ({by_script}) on {figures.held_out:,} held-out texts, "
        f"trained on {figures.trained:,}"
    )


def _texts(path: Path, text_key: str) -> Iterator[str]:
    from teleflm.data.find import find_corpus
    from teleflm.data.sources import Reading, iterate_documents

    for document in iterate_documents(find_corpus([path]), Reading(text_key)):
        yield document.text
