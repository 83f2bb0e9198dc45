"""teleflm sweep: a search, and what it found."""

import json as json_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from teleflm.cli.extras import needing
from teleflm.cli.out import WIDTH


class _RunUnlessNamed(TyperGroup):
    """`teleflm sweep SWEEP.yaml` is `teleflm sweep run SWEEP.yaml`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, "--help"):
            args = ["run", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_RunUnlessNamed,
    no_args_is_help=True,
    help="Search over a run's keys: teleflm sweep SWEEP.yaml is teleflm sweep run SWEEP.yaml.",
)


@app.command()
def run(
    sweep: Annotated[Path, typer.Argument(metavar="SWEEP.yaml", help="The run and its ranges.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[key=value]…", help="Settings laid over it.")
    ] = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="Run no trial; check that µP holds for its model."),
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", help="With --check, print one JSON object instead.")
    ] = False,
) -> None:
    """Run the trials of a sweep, or those that are left; `run` need not be written.

    The same command goes on where it was stopped, and started beside itself it shares the work.

    Example: teleflm sweep run examples/sweep.yaml run.data.path=store workers=2
    """
    from teleflm.config.sweep import load_sweep

    with needing("sweep"):
        from teleflm.tuning.findings import findings
        from teleflm.tuning.sweep import run_sweep

    config = load_sweep(sweep, overrides or ())
    if check:
        from teleflm.cli.coordinates import run_check

        run_check(config, str(sweep), json)
        return
    if json:
        raise typer.BadParameter("it prints a check; add --check", param_hint="--json")
    study = run_sweep(config, str(sweep))
    _show(findings(config, study.trials()))
    typer.echo(f"the page: teleflm sweep report {config.sweep_dir}")


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The sweep_dir of a sweep.")],
    to: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Carry the best over to this shape.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """Say what a sweep found so far, and write DIR/report.html.

    Example: teleflm sweep report runs/sweep --to tele-flm-1t
    """
    from teleflm.report.sweep import write_sweep_report

    with needing("sweep"):
        from teleflm.tuning.findings import findings, read_sweep

    facts = findings(*read_sweep(folder), to)
    if json:
        typer.echo(json_module.dumps(facts, indent=2))
        return
    _show(facts)
    if to is not None:
        _show_transfer(facts)
    typer.echo(write_sweep_report(folder, facts))


def _show(facts: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from teleflm.report.words import decimal

    table = Table()
    for title in ("trial", "state"):
        table.add_column(title, no_wrap=True)
    for title in ("loss", "slope", "rough"):
        table.add_column(title, justify="right", no_wrap=True)
    names = [key.rpartition(".")[2] for key in facts["space"]]
    table.add_column("\n· ".join(names), overflow="fold")
    for trial in facts["trials"]:
        mark = " *" if trial["number"] == facts["best_trial"] else ""
        table.add_row(
            f"{trial['number']}{mark}",
            trial["state"],
            decimal(trial["loss"], 4),
            decimal(trial["slope"], 1),
            decimal(trial["roughness"]),
            Text(" · ".join(map(json_module.dumps, trial["values"].values()))),
        )
    Console(width=WIDTH).print(table)
    states = [trial["state"] for trial in facts["trials"]]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    typer.echo(f"{len(states)} trials: {counts}")
    if facts["best"] is None:
        return
    typer.echo(f"* best: trial {facts['best_trial']}, loss {facts['best_loss']:.4f}")
    for key, value in facts["best"].items():
        typer.echo(f"  {key}={json_module.dumps(value)}")
    if facts["importances"]:
        shares = [f"{key} {share:.0%}" for key, share in facts["importances"].items()]
        typer.echo(f"sensitivity: {', '.join(shares)}")
    if facts["noise"]:
        others = [n for n in facts["noise"]["as_good"] if n != facts["best_trial"]]
        typer.echo(
            f"noise by seed: {facts['noise']['standard_deviation']:.4f}; not told apart from the "
            f"best: {', '.join(map(str, others)) or 'none'}"
        )


def _show_transfer(facts: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    from teleflm.report.words import setting

    table = Table(title=f"by µP, from the proxy to {facts['to']}")
    table.add_column("")
    for title in ("proxy", "target"):
        table.add_column(title, justify="right")
    proxy, target = (facts["effective"][side] for side in ("proxy", "target"))
    for name in proxy:
        table.add_row(name, setting(proxy[name]), setting(target[name]))
    Console(width=WIDTH).print(table)
    typer.echo(facts["yaml"], nl=False)
    if facts["left"]:
        typer.echo(f"# µP says nothing of {', '.join(facts['left'])}: the best is the proxy's own")
