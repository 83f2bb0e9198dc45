"""teleflm data mix."""

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from teleflm.cli.extras import needing
from teleflm.cli.out import WIDTH

if TYPE_CHECKING:
    from teleflm.data.budget import Reading


class _Mixture(NamedTuple):
    """Tokens of each domain, once, and its weight."""

    tokens: dict[str, int]
    weights: dict[str, float]


def mix(
    source: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE|STORE|RUN.yaml", help="A cleaned recipe, a token store or a run."
        ),
    ],
    tokens: Annotated[float, typer.Option(help="Tokens that a run reads in all, as 2.5e9.")],
    weight: Annotated[
        list[str] | None, typer.Option(help="DOMAIN=W in place of the weights there are.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """Show how often a run of so many tokens reads each domain, and the domain's share of it.

    A store's domains are weighted by their tokens, a run's as its data.path says. Of a recipe that
    `data clean` has finished, the sources are weighted by kept tokens and epochs.

    Example: teleflm data mix store --tokens 2e9 --weight english=2 --weight code=1
    """
    from teleflm.data.budget import NEARLY_NEW, readings
    from teleflm.data.sampling import parse_weights
    from teleflm.data.sources import note
    from teleflm.errors import ConfigError

    if not 1 <= tokens < 2**63:
        raise ConfigError(f"--tokens {tokens:g}: not a number of tokens; write it as 2.5e9")
    mixture = _mixture(source)
    weights = parse_weights(weight or []) or mixture.weights
    found = readings(mixture.tokens, weights, round(tokens))
    if json:
        typer.echo(json_module.dumps(_content(source, found, round(tokens)), indent=2))
    else:
        _print(source, found, tokens)
    for name, reading in found.items():
        if reading.epochs > NEARLY_NEW:
            note(
                f"{name} is read {reading.epochs:.1f} times; up to {NEARLY_NEW:g} epochs repeated "
                "text is nearly as good as new text, beyond them it is worth less and less "
                "(arXiv 2305.16264)"
            )


def _mixture(source: str) -> _Mixture:
    from teleflm.config.base import build, read_yaml
    from teleflm.config.run import DataConfig
    from teleflm.data.mixture import open_domains, tokens_once
    from teleflm.data.sources import note
    from teleflm.data.store import TokenStore

    path, length = Path(source), None
    if path.is_dir():
        domains = open_domains(path).domains
        if copies := TokenStore(path).copies:
            note(f"{copies:,} of the documents are copies by their weight, and count as new here")
        if any(domain.is_chat for domain in domains):
            note(
                "conversations are read in rows of data.sequence_length, which they do not fill; "
                "name a RUN.yaml for its figures"
            )
    elif path.is_file() and "data" in (run := read_yaml(path)):
        data = build(DataConfig, run["data"], f"{path}: data")
        length = data.sequence_length
        domains = open_domains(data.path, data.tokenizer, length).domains
    else:
        return _of_recipe(source)
    return _Mixture(
        {domain.name: tokens_once(domain, length) for domain in domains},
        {domain.name: domain.weight for domain in domains},
    )


def _of_recipe(source: str) -> _Mixture:
    with needing("clean"):
        from teleflm.cleaning.finish import read_summary
        from teleflm.cleaning.folders import Folders
        from teleflm.cleaning.recipe import load_recipe
    from teleflm.errors import DataError

    recipe = load_recipe(source)
    path = Folders(Path(recipe.out)).clean
    if not path.is_file():
        raise DataError(f"{path}: not there yet; run first: teleflm data clean {source}")
    try:
        kept = read_summary(path)["sources"]
        sizes = {s.name: kept[s.name]["kept_tokens"] for s in recipe.sources if s.name in kept}
        empty = [name for name in sizes if not kept[name]["kept_bytes"]]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: damaged ({error!r}); clean again") from error
    if missing := [s.name for s in recipe.sources if s.name not in sizes]:
        raise DataError(
            f"{path}: nothing of the source {missing[0]!r}; run again: teleflm data clean {source}"
        )
    tokens = {name: 0 if name in empty else size for name, size in sizes.items()}
    if uncounted := [name for name, size in tokens.items() if size is None]:
        raise DataError(
            f"{path}: the tokens of {uncounted[0]!r} were not counted; set `tokenizer` in the "
            "recipe and clean again, or prepare a token store of the text and name that"
        )
    return _Mixture(tokens, {s.name: tokens[s.name] * s.epochs for s in recipe.sources})


def _content(source: str, found: "dict[str, Reading]", tokens: int) -> dict[str, object]:
    from dataclasses import asdict

    domains = {name: asdict(reading) for name, reading in found.items()}
    return {"source": source, "tokens": tokens, "domains": domains}


def _print(source: str, found: "dict[str, Reading]", tokens: float) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(f"{Path(source).name}: a run of {tokens:,.0f} tokens"))
    table.add_column("domain", overflow="fold")
    for title in ("tokens", "share", "tokens read", "epochs"):
        table.add_column(title, justify="right", no_wrap=True)
    for name, reading in found.items():
        table.add_row(
            Text(name),
            f"{reading.tokens:,}",
            f"{100 * reading.share:.2f} %",
            f"{reading.read:,.0f}",
            f"{reading.epochs:.2f}",
        )
    Console(width=WIDTH).print(table)
