"""teleflm sweep SWEEP.yaml --check: whether µP holds."""

from json import dumps
from pathlib import Path
from typing import Any

import typer

from teleflm.cli.out import WIDTH
from teleflm.config.sweep import SweepConfig
from teleflm.errors import CheckFailedError


def run_check(config: SweepConfig, source: str, as_json: bool) -> None:
    """Check the coordinates of a sweep's model, print their slopes and write the page.

    Raises:
        CheckFailedError: a slope is not what it is to be.
        ConfigError: the sweep's run makes no sense.
    """
    from teleflm.cli.progress import count_progress
    from teleflm.tuning.check import check, models
    from teleflm.tuning.space import first_run

    run, of = first_run(config, source), models(config.check)
    done = 0
    with count_progress("coordinates", "models") as progress:

        def advance(count: int) -> None:
            nonlocal done
            done += count
            progress(done, of)

        result = check(run.final_model, run.optimizer, config.check, advance=advance)
    facts = result.to_json()
    if as_json:
        typer.echo(dumps(facts))
    else:
        from teleflm.report.coordinates import write_check_page

        _show(facts)
        page = write_check_page(Path(config.sweep_dir) / "coordinates.html", facts)
        typer.echo(f"page: {page}", err=True)
    if not result.passed:
        raise CheckFailedError(
            f"{source}: {len(facts['wrong'])} of {len(facts['theory'])} slopes are further than "
            f"{facts['tolerance']:g} from theory's: {', '.join(facts['wrong'][:4])}"
            + (" …" if len(facts["wrong"]) > 4 else "")
        )
    if not as_json:
        typer.echo(f"passed: {len(facts['theory'])} slopes within {facts['tolerance']:g}")


def _show(facts: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    from teleflm.report.coordinates import columns, rows

    table = Table("slope of")
    for column in columns(facts):
        table.add_column(column.replace("/", "\n"), justify="right", no_wrap=True)
    for quantity, cells in rows(facts).items():
        told = []
        for cell in cells:
            mark = "" if cell is None else " !" if cell.wrong else "  " if cell.judged else " ·"
            told.append("" if cell is None else f"{cell.text}{mark}")
        table.add_row(quantity, *told)
    Console(width=WIDTH).print(table)
    typer.echo("to be 0, of logits at init -0.5; ! is wrong, · is not judged")
