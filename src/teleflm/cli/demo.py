"""teleflm demo."""

from json import dumps, loads
from pathlib import Path
from typing import Annotated

import typer


def demo(
    data: Annotated[
        list[Path] | None,
        typer.Option(help="Your own text instead: files or folders; may be given often."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Where everything goes.")] = Path("demo"),
    force: Annotated[bool, typer.Option("--force", help="Start over.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """The whole story on this machine: from text to a grown, proven, exported model.

    A small model is trained on English, Chinese and code, grown twice by the Tele-FLM ratios,
    certified at each growth, evaluated and exported. What is done is not done again.

    Example: teleflm demo --data mytexts/ --out mydemo
    """
    from teleflm.demo.story import run_demo
    from teleflm.series.finish import SUMMARY

    folder = run_demo(data or [], out, force=force)
    if json:
        typer.echo(dumps(loads((folder / SUMMARY).read_text(encoding="utf-8"))))
    else:
        typer.echo(f"the report: {folder / 'report.html'}")
        typer.echo(f"the models: {folder / 'export'}")
