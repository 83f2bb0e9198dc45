"""teleflm tokenizer report."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from teleflm.cli.corpus import DOMAIN_BY_HELP, TEXT_KEY_HELP, printable
from teleflm.cli.out import WIDTH

if TYPE_CHECKING:
    from teleflm.data.vocabulary_report import Fit

# As many tokenizers as have room for their figures beside each other.
_BESIDE = 5
# Wide enough for what the facts are called.
_FIRST = 15
# Letters of a token that are shown.
_SHOWN = 12
# Below it are the spaces and line ends that a tokenizer takes for others.
_LOSS_TOLD = 0.001
# No argument of a process can be this one.
_BETWEEN = "\0"


class TwoLists(TyperCommand):
    """A command of two lists of arguments with `--` between them, and options anywhere.

    By itself the parser takes what stands behind `--` for arguments of the one list.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """The parser's work, with a mark in place of the first `--`."""
        place = args.index("--") if "--" in args else len(args)
        return super().parse_args(ctx, [*args[:place], _BETWEEN, *args[place + 1 :]])


def report(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="TOKENIZER... -- PATH...",
            help="Folders with tokenizer.json, or tiktoken:cl100k_base; then text, as for train.",
        ),
    ],
    picture: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Draw the tokens per byte.")
    ] = None,
    text_key: Annotated[str, typer.Option(help=TEXT_KEY_HELP)] = "text",
    domain_by: Annotated[str, typer.Option(help=DOMAIN_BY_HELP)] = "record",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """Compare tokenizers on the same text: tokens per UTF-8 byte by domain, and more.

    Example: teleflm tokenizer report tokenizer tiktoken:cl100k_base -- corpus/
    """
    from teleflm.data.find import find_corpus
    from teleflm.data.progress import byte_progress
    from teleflm.data.sources import Reading
    from teleflm.data.vocabulary import open_vocabulary
    from teleflm.data.vocabulary_report import compare

    tokenizers, paths = _lists(names)
    reading, corpus = Reading(text_key, domain_by=domain_by), find_corpus(paths)
    vocabularies = {name: open_vocabulary(name) for name in tokenizers}
    with byte_progress("counting tokens", corpus.bytes) as progress:
        fits, sizes = compare(vocabularies, corpus, reading, progress)
    if json:
        _print_json(fits, sizes)
    else:
        _print_tables(fits, sizes)
    if picture is not None:
        from teleflm.report.vocabulary import write_vocabulary_picture

        write_vocabulary_picture(fits, picture)
        if not json:
            typer.echo(f"picture: {picture}")


def _lists(names: list[str]) -> tuple[list[str], list[Path]]:
    from teleflm.errors import DataError

    place = names.index(_BETWEEN)
    tokenizers, paths = names[:place], [Path(name) for name in names[place + 1 :]]
    if not tokenizers or not paths:
        raise DataError(
            f"no {'text' if tokenizers else 'tokenizer'} to compare on; name tokenizers, then --, "
            "then files or folders of text: teleflm tokenizer report TOKENIZER -- corpus/"
        )
    if twice := [name for name in tokenizers if tokenizers.count(name) > 1]:
        raise DataError(f"{twice[0]}: named twice; name each tokenizer once")
    return tokenizers, paths


def _print_json(fits: "dict[str, Fit]", sizes: dict[str, int]) -> None:
    import json
    from dataclasses import asdict

    content = {
        "bytes": dict(sorted(sizes.items())),
        "tokenizers": {name: asdict(fit) for name, fit in fits.items()},
    }
    typer.echo(json.dumps(content, indent=2, ensure_ascii=False))


def _print_tables(fits: "dict[str, Fit]", sizes: dict[str, int]) -> None:
    from rich.console import Console

    console, names = Console(width=WIDTH), list(fits)
    for start in range(0, len(names), _BESIDE):
        some = {name: fits[name] for name in names[start : start + _BESIDE]}
        console.print(_rates(some, sizes))
        console.print(_facts(some))
    for name, fit in fits.items():
        for line in _tokens(name, fit):
            console.print(line)


def _rates(fits: "dict[str, Fit]", sizes: dict[str, int]) -> Any:
    from rich.text import Text

    table = _table("tokens per byte", fits)
    for domain in sorted(sizes):
        rates = (f"{fit.tokens_per_byte[domain]:.4f}" for fit in fits.values())
        table.add_row(Text(printable(domain)), *rates)
    table.add_section()
    table.add_row("mean", *(f"{fit.tokens_per_byte_mean:.4f}" for fit in fits.values()))
    return table


def _facts(fits: "dict[str, Fit]") -> Any:
    table = _table("", fits)
    rows = {
        "vocabulary": lambda fit: f"{fit.vocab_size:,}",
        "pre-tokenizer": lambda fit: fit.pre_tokenizer or "another",
        "bytes per token": lambda fit: f"{fit.bytes_per_token:.3f}",
        "single bytes": lambda fit: f"{fit.single_byte_share:.1%}",
        "never used": lambda fit: f"{fit.unused_share:.1%}",
        "MB/s": lambda fit: f"{fit.megabytes_per_second:.1f}",
    }
    for title, shown in rows.items():
        table.add_row(title, *map(shown, fits.values()))
    return table


def _table(title: str, fits: "dict[str, Fit]") -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table()
    table.add_column(title, overflow="fold", min_width=_FIRST)
    for name in fits:
        table.add_column(Text(name), justify="right", overflow="fold")
    return table


def _tokens(name: str, fit: "Fit") -> "list[Any]":
    """What a tokenizer's tokens look like, in lines."""
    from rich.text import Text

    def listed(tokens: list[str]) -> str:
        return " ".join(repr(f"{t[:_SHOWN]}…" if len(t) > _SHOWN else t) for t in tokens) or "none"

    lines = [
        f"{name}:",
        f"  1234567890 is {printable(' '.join(fit.digits))}",
        f"  longest: {listed(fit.longest)}",
        f"  never used: {fit.unused:,}, as {listed(fit.unused_examples)}",
    ]
    if fit.lost_share > _LOSS_TOLD:
        lines.append(
            f"  loses {fit.lost_share:.1%} of the text's bytes: its figures are of the rest alone"
        )
    return [Text(line) for line in lines]
