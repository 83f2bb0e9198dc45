"""teleflm eval."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import typer

from teleflm.cli.corpus import DOMAIN_BY_HELP, TEXT_KEY_HELP
from teleflm.cli.out import check_new
from teleflm.errors import ConfigError
from teleflm.files import write_whole

if TYPE_CHECKING:
    from teleflm.evaluation.evaluate import Settings

Json = dict[str, Any]
_SUMMARY = "summary.json"


def evaluate(
    checkpoints: Annotated[
        list[Path],
        typer.Argument(
            metavar="CKPT|DIR",
            help="Run folders, checkpoints, Hugging Face model folders, or a series' folder.",
        ),
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="STORE|PATH",
            help="A token store, or text; by default the run's own store, with --tasks none.",
        ),
    ] = None,
    all_: Annotated[
        bool, typer.Option("--all", help="All of a store, not its held-out part alone.")
    ] = False,
    tasks: Annotated[
        str | None, typer.Option(metavar="NAME,...", help="Tasks of lm-eval, or of --include.")
    ] = None,
    include: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="A folder with task files of your own.")
    ] = None,
    few_shot: Annotated[
        int | None,
        typer.Option(min=0, help="Examples shown with each question; by default the task's."),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Only the first N documents of each task.", metavar="N"),
    ] = None,
    apply_chat_template: Annotated[
        bool,
        typer.Option(
            "--apply-chat-template", help="Write questions as chats, by the model's template."
        ),
    ] = False,
    run_code: Annotated[
        bool, typer.Option("--run-code", help="Let tasks run code that the model wrote.")
    ] = False,
    sequence_length: Annotated[
        int | None, typer.Option(min=1, help="Tokens that are read at once; by default the run's.")
    ] = None,
    windows: Annotated[
        Literal["disjoint", "rolling"],
        typer.Option(help="How text is cut: as in training, or as lm-eval does."),
    ] = "disjoint",
    tokens: Annotated[
        int | None,
        typer.Option(min=1, help="At most so many tokens of each domain; by default all."),
    ] = None,
    dtype: Annotated[
        Literal["fp32", "bf16"], typer.Option(help="Precision of matrix products.")
    ] = "fp32",
    text_key: Annotated[str, typer.Option(help=TEXT_KEY_HELP)] = "text",
    domain_by: Annotated[str, typer.Option(help=DOMAIN_BY_HELP)] = "record",
    layout: Annotated[
        str | None,
        typer.Option(
            metavar="tp=N,pp=N",
            help="How ranks under torchrun share a model; by default each has it whole.",
        ),
    ] = None,
    compare: Annotated[
        bool,
        typer.Option(
            "--compare", help="Show the models beside each other, on the first one's text."
        ),
    ] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="With --compare, write a page too.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """Evaluate models: bits per byte by domain, and tasks of lm-eval. torchrun may start it.

    Example: teleflm eval runs/nano demo/export/granite --data store --compare
    """
    # Of lm-eval, which shows a bar for each of its steps beside ours; read when torch is loaded.
    os.environ.setdefault("TQDM_DISABLE", "1")
    from teleflm.cli.evaluated import comparison, told
    from teleflm.config.base import apply_overrides, build
    from teleflm.config.run import ParallelConfig
    from teleflm.data.sources import Reading
    from teleflm.evaluation.evaluate import Settings
    from teleflm.evaluation.tasks import TaskSettings

    if out is not None and not compare:
        raise ConfigError("--out writes the page of a comparison; add --compare, or leave it out")
    check_new(out)
    names = [name for name in (tasks or "").split(",") if name]
    asked = TaskSettings(names, include, few_shot, limit, apply_chat_template, run_code)
    if tasks is not None and not names:
        raise ConfigError("--tasks names no task; give one or more, with commas between them")
    if tasks is None and asked != TaskSettings([]):
        raise ConfigError(
            "--include, --few-shot, --limit, --apply-chat-template and --run-code say how tasks "
            "are asked; name the tasks with --tasks"
        )
    parallel = None
    if layout is not None:
        keys = apply_overrides({}, layout.split(","))
        parallel = build(ParallelConfig, keys, "--layout")
    settings = Settings(
        data=data,
        whole=all_,
        reading=Reading(text_key, domain_by=domain_by),
        windowing=windows,
        tokens=tokens,
        length=sequence_length,
        text_length=sequence_length,
        precision=dtype,
        parallel=parallel,
        tasks=None if tasks is None else asked,
    )
    targets = [target for path in checkpoints for target in _targets(path)]
    twice = [name for name, count in Counter(each.name for each in targets).items() if count > 1]
    if twice:
        raise ConfigError(f"{twice[0]}: is named twice; name each model once")
    found = _evaluated(targets, settings, compare)
    if found is None:
        return  # another rank tells it
    if json:
        alone = next(iter(found.values())) if len(found) == 1 else {"models": found}
        typer.echo(dumps(alone, ensure_ascii=False))
    elif compare:
        typer.echo(comparison(found))
    else:
        typer.echo("\n\n".join(told(name, facts) for name, facts in found.items()))
    # Afterwards, as a page may want a library that is not there.
    _keep(targets, found, checkpoints)
    if out is not None:
        from teleflm.report.evaluation import write_evaluation_page

        typer.echo(f"page: {write_evaluation_page(out, found)}", err=True)


class _Target(NamedTuple):
    """A model to evaluate.

    Attributes:
        name: it is told by, no two alike.
        path: where it lies.
        stage: whether it is a stage of a series, which keeps what was found.
    """

    name: str
    path: Path
    stage: bool


def _targets(path: Path) -> Iterator[_Target]:
    if not (path / _SUMMARY).is_file():
        yield _Target(str(path), path, False)
        return
    from teleflm.report.summary import read_summary

    for stage in read_summary(path).stages:
        yield _Target(str(path / stage.run_dir), path / stage.run_dir, True)


def _evaluated(targets: list[_Target], settings: "Settings", alike: bool) -> dict[str, Json] | None:
    """What was found of each, by its name; None but on the first rank. Where they are to be
    `alike`, they read what the first one does, and as many tokens at once."""
    from teleflm.data.progress import item_progress
    from teleflm.evaluation.evaluate import evaluate_path
    from teleflm.evaluation.tasks import load_tasks
    from teleflm.parallel.world import world

    with world() as (ranks, device):
        loaded = load_tasks(settings.tasks) if settings.tasks is not None else None
        progress = partial(item_progress, things="bytes", shown=ranks.first)
        found: dict[str, Json] = {}
        first = None
        for target in targets:
            facts, measured = evaluate_path(target.path, settings, loaded, device, progress, first)
            found[target.name] = facts
            if alike and first is None:
                first = measured
                # What reads more at once needs fewer bits, whichever model it is.
                data = None if facts["data"] is None else Path(facts["data"])
                settings = replace(settings, data=data, text_length=facts["sequence_length"])
        return found if ranks.first else None


def _keep(targets: list[_Target], found: dict[str, Json], paths: list[Path]) -> None:
    """Have the pages of series show what was found of their stages."""
    series = [path for path in paths if (path / _SUMMARY).is_file()]
    if not series:
        return
    from teleflm.report.evaluation import RECORD
    from teleflm.report.series import write_series_report

    for target in targets:
        if target.stage:
            write_whole(target.path / RECORD, dumps(found[target.name], ensure_ascii=False))
    for path in series:
        typer.echo(f"page: {write_series_report(path)}", err=True)
