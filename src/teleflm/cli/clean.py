"""teleflm data clean."""

from pathlib import Path
from typing import Annotated, Any

import typer

from teleflm.cli.extras import needing
from teleflm.cli.out import WIDTH


def clean(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE.yaml", help="A file, or a name below.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[key=value]…", help="Keys to set.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print clean.json instead.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Start over in the recipe's out.")] = False,
) -> None:
    """Clean raw text: extract, filter, remove duplicates and test sets, weight.

    Recipes that come along: books, code, tele-flm, web-en, web-zh. A file's key `recipe` names one
    to begin with. Stopped at any moment, the same command goes on.

    Example: teleflm data clean web-en out=clean "sources=[{name: web, path: warc/, language: en}]"
    """
    with needing("clean"):
        from teleflm.cleaning.clean import clean as do
        from teleflm.cleaning.recipe import load_recipe
        from teleflm.cleaning.steps import KINDS
    from teleflm.data.progress import byte_progress

    loaded = load_recipe(recipe, overrides or [])
    found = do(loaded, KINDS, recipe, lambda total: byte_progress("cleaning", total), force=force)
    if isinstance(found, list):
        typer.echo(f"handed to Slurm, jobs {', '.join(found)}; the last one writes {loaded.out}")
        return
    for name, its in found["sources"].items():
        if not its["documents"]:
            typer.echo(f"note: source {name}: no text in any of its files", err=True)
    if json:
        typer.echo((Path(loaded.out) / "clean.json").read_text(encoding="utf-8"), nl=False)
    else:
        _print(found, Path(loaded.out))


def _print(found: dict[str, Any], out: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(width=WIDTH)
    table = Table()
    table.add_column("step", overflow="fold")
    for title in ("documents", "left", "MB", "left", "most often dropped"):
        table.add_column(
            title, justify="left" if "most" in title else "right", no_wrap="most" not in title
        )
    for step in found["steps"]:
        reasons = [f"{reason} {count:,}" for reason, count in list(step["reasons"].items())[:2]]
        table.add_row(
            step["name"],
            f"{step['documents_out']:,}",
            _share(step["documents_out"], step["documents_in"]),
            f"{step['bytes_out'] / 1e6:,.1f}",
            _share(step["bytes_out"], step["bytes_in"]),
            ", ".join(reasons),
        )
    console.print(table)
    sources = found["sources"].values()
    read, kept = (sum(source[key] for source in sources) for key in ("bytes", "kept_bytes"))
    typer.echo(
        f"{out}: {kept / 1e6:,.1f} of {read / 1e6:,.1f} MB kept; {out / 'report.html'} has the rest"
    )
    if found["without_text"]:
        typer.echo(f"{found['without_text']:,} records without text were left out")


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "–"
