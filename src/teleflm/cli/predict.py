"""teleflm predict."""

from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Annotated

import typer

from teleflm.cli.out import WIDTH
from teleflm.errors import ConfigError

if TYPE_CHECKING:
    from teleflm.report.prediction import PredictionRecord

# What every page of predict's has, and no other file.
_PAGE = "teleflm · predict".encode()
# Columns that are left for a run's path.
_NAME = 37


def predict(
    at: Annotated[
        str, typer.Option(metavar="MODEL|N", help="What to predict; with --points, N millions.")
    ],
    runs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="RUN…", help="Folders of finished runs, alike but for their size."),
    ] = None,
    points: Annotated[
        Path | None,
        typer.Option(metavar="FILE.json", help="Sizes and losses in place of RUN…."),
    ] = None,
    tokens: Annotated[
        float | None,
        typer.Option(metavar="N", min=1, help="That MODEL reads; as many as the runs by default."),
    ] = None,
    leave: Annotated[
        int,
        typer.Option(metavar="K", min=0, help="Keep the K largest sizes out, and tell the errors."),
    ] = 0,
    out: Annotated[
        Path | None, typer.Option(metavar="PAGE.html", help="Write a page of it too.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """Predict the loss of a size that was not trained from six sizes or more that were, with a 90 %
    interval for a new run.

    Example: teleflm predict runs/w* --at wide.yaml --out prediction.html
    """
    if bool(runs) == (points is not None):
        raise ConfigError("from what? Give folders of runs, or --points FILE.json, one of the two")
    if out is not None:
        _check_out(out)
    if points is not None:
        found = _of_points(points, at, tokens, leave)
    else:
        found = _of_runs(runs or [], at, tokens, leave)
    typer.echo(found.model_dump_json() if json else "\n".join(_told(found)))
    if out is not None:
        from teleflm.report.prediction import write_prediction

        typer.echo(f"the page: {write_prediction(out, found)}", err=json)


def _check_out(out: Path) -> None:
    """Refuse to replace a file that is no such page."""
    if out.is_dir():
        raise ConfigError(f"--out {out} is a folder; give the name of a page in it")
    if out.is_file() and _PAGE not in out.read_bytes():
        raise ConfigError(f"--out {out} is there, no page of predict's, and stays; give another")


def _of_points(points: Path, at: str, tokens: float | None, leave: int) -> "PredictionRecord":
    from teleflm.prediction.predict import predict as predict_size
    from teleflm.prediction.predict import read_points

    if tokens is not None:
        raise ConfigError("--tokens is for folders of runs: a points file has no curves")
    try:
        size = float(at)
    except ValueError:
        raise ConfigError(f"--at {at}: with --points give a number, of millions") from None
    return predict_size(read_points(points), size, leave)


def _of_runs(runs: list[Path], at: str, tokens: float | None, leave: int) -> "PredictionRecord":
    from teleflm.prediction.from_runs import predict_from_runs
    from teleflm.prediction.runs import read_run

    return predict_from_runs([read_run(run) for run in runs], at, tokens, leave)


def _told(found: "PredictionRecord") -> list[str]:
    place, (low, high) = found.at, found.interval
    name = "" if place.model is None else f"{place.model}, "
    after = "" if place.tokens is None else f" after {place.tokens:,.0f} tokens"
    lines = [
        *_laws(found),
        "",
        *wrap(f"{name}{place.parameters_million:,.6g} M parameters{after}:", WIDTH),
        f"  {found.prediction:.4f} nats a token; a new run: {low:.4f} to {high:.4f} "
        f"({found.level:.0%})",
        "",
        *_points(found),
        "",
        "The largest, from the smaller sizes alone:",
    ]
    for each in found.left_out:
        low, high = each.interval
        lines.append(
            f"  {each.parameters_million:,.6g} M: {each.prediction:.4f} ({low:.4f} to {high:.4f}); "
            f"measured {each.loss:.4f}, so {each.relative_error:+.2%} off"
        )
    for warning in found.warnings:
        lines += wrap(f"warning: {warning}", WIDTH, subsequent_indent="  ", break_on_hyphens=False)
    return lines


def _laws(found: "PredictionRecord") -> list[str]:
    law, by = found.law, found.token_law
    lines = [f"L = {law.a:.4g} · C^{law.b:.4f} + {law.c:.4f}, C in millions of parameters"]
    if by is not None and found.of_other_tokens:
        lines += [
            f"L = {by.E:.4f} + {by.A:.4g} · N^-{by.alpha:.4f} + {by.B:.4g} · D^-{by.beta:.4f}, in "
            "millions of",
            "    parameters N and tokens D",
        ]
    return [*lines, f"A run is {found.noise:.4f} off it (standard deviation)."]


def _points(found: "PredictionRecord") -> list[str]:
    """A row for each run, and the law at the tokens that they read."""
    loss = "loss" if found.loss == "given" else found.loss
    lines = [f"{'M':>12} {loss:>9} {'law':>8} {'residual':>9}"]
    if found.tokens is not None:
        lines[0] += f"  after {found.tokens:,.0f} tokens"
    for point in found.points:
        size = f"{'*' if point.left_out else ''}{point.parameters_million:,.6g}"
        row = f"{size:>12} {point.loss:9.4f} {point.fitted:8.4f} {point.residual:+9.4f}"
        lines.append(f"{row}  {_short(point.name)}".rstrip())
    if any(point.left_out for point in found.points):
        lines.append("* left out of the fit")
    return lines


def _short(name: str) -> str:
    """The end of a run's path, as far as it fits."""
    return name if len(name) <= _NAME else f"…{name[1 - _NAME :]}"
