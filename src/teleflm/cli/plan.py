"""teleflm plan."""

from collections.abc import Sequence
from json import dumps
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Annotated, Any

import typer

from teleflm.cli.out import WIDTH
from teleflm.errors import ConfigError

if TYPE_CHECKING:
    from teleflm.config.cluster import ClusterConfig
    from teleflm.config.run import RunConfig
    from teleflm.planning.plan import Plan
    from teleflm.planning.search import Candidate

# Layouts that the terminal shows; all are in the JSON.
_SHOWN = 10


def plan(
    run: Annotated[
        str, typer.Argument(metavar="MODEL|RUN.yaml|SERIES.yaml", help="A model, run or series.")
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="key=value", help="Settings laid over it.")
    ] = None,
    cluster: Annotated[
        str | None, typer.Option(help="A shipped cluster, a YAML file, or local.")
    ] = None,
    calibrate: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Measure this machine, write it as a cluster, and plan."),
    ] = None,
    search: Annotated[bool, typer.Option("--search", help="Rank all layouts.")] = False,
    law: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Of a series: its losses by what teleflm predict --json printed."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write plan.json and report.html there too.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """Say of a job on a cluster whether it fits, how long it takes and what it costs; with
    --search, on which layout. Of a series, each stage, and the same tokens from scratch.

    Example: teleflm plan tele-flm-1t --cluster a800-112x8 --search parallel.tp=32 parallel.pp=28
    """
    from teleflm.cli.job_page import check_out, write_plan
    from teleflm.planning.facts import candidate_facts, plan_facts
    from teleflm.planning.local import auto_on
    from teleflm.planning.plan import plan as plan_of
    from teleflm.planning.run import is_run, planned_run, run_of_model
    from teleflm.planning.search import least_recomputation
    from teleflm.planning.search import search as search_in
    from teleflm.planning.series import is_series

    if out is not None:
        check_out(out, "plan")
    given = overrides or ()
    if is_series(run):
        from teleflm.cli.plan_series import told_series

        if cluster is None or out is not None:
            raise ConfigError(
                f"{run} is a series: it is planned with --cluster, without --calibrate and --out; "
                "those are for one of its stages, as a RUN.yaml"
            )
        return typer.echo(told_series(run, given, cluster, search, law, json))
    if law is not None:
        raise ConfigError(f"--law is for a SERIES.yaml, and {run} is none; leave it out")
    of_run = is_run(run)
    auto = auto_on(cluster)
    config = planned_run(Path(run), given) if of_run else run_of_model(run, given, auto)
    machines, cluster = _machines(config, cluster, calibrate)
    if search:
        candidates = search_in(config, machines)
        found = candidates[0].plan
        assert found is not None
        facts = {**plan_facts(found), "candidates": [candidate_facts(each) for each in candidates]}
        lines = [*_told(found, run, cluster), "", *_table(candidates)]
    else:
        # What a model alone leaves open is chosen; a run is planned as it would train.
        is_open = not of_run and "activation_checkpointing" not in config.parallel.model_fields_set
        found = (least_recomputation if is_open else plan_of)(config, machines)
        facts, lines = plan_facts(found), _told(found, run, cluster)
    typer.echo(dumps(facts) if json else "\n".join(lines))
    if out is not None:
        page = write_plan(out, facts, found, run, cluster)
        typer.echo(f"the report: {page}", err=json)


def _machines(
    config: "RunConfig", cluster: str | None, calibrate: Path | None
) -> "tuple[ClusterConfig, str]":
    """The cluster and its name: one that is there, or this machine, measured."""
    from teleflm.planning.calibrate import calibrated, write_calibrated
    from teleflm.planning.local import cluster_of

    if calibrate is None:
        if cluster is None:
            raise ConfigError("on what? Give --cluster, or --calibrate to measure this machine")
        return cluster_of(cluster, config.training.dtype), cluster
    if cluster is not None:
        raise ConfigError("--calibrate makes a cluster of this machine; leave out --cluster")
    if calibrate.exists():
        raise ConfigError(
            f"{calibrate} is there already and stays; choose another name to measure again, or "
            f"plan with --cluster {calibrate}"
        )
    typer.echo("measuring this machine: steps of 1 and 4 of the model's layers", err=True)
    measured = calibrated(config)
    write_calibrated(calibrate, config, measured)
    typer.echo(f"written to {calibrate}; next time: --cluster {calibrate}", err=True)
    return measured, str(calibrate)


def _told(found: "Plan", run: str, cluster: str) -> list[str]:
    from teleflm.parallel.memory import size_text
    from teleflm.planning.facts import STEP_PARTS
    from teleflm.report.words import days

    training, layout = found.config.training, found.layout
    lines = [
        f"{run} on {cluster}: {layout.ranks} rank{'s' * (layout.ranks > 1)}, {layout}",
        f"micro-batch {found.micro_batch} of {training.global_batch} sequences, activation "
        f"checkpointing {found.config.parallel.activation_checkpointing}",
        f"parameters  {found.parameters:,}",
        "memory of the rank that needs most",
    ]
    lines += [f"  {kind:14} {size_text(held):>9}" for kind, held in found.memory.items()]
    verdict = "fits" if found.breaks is None else f"does not fit: {found.breaks}"
    lines += [
        f"  of {size_text(found.cluster.memory)}: {verdict}",
        f"a step  {found.time.seconds:.3g} s",
    ]
    if training.dtype != found.cluster.dtype:
        lines.append(
            f"  as if in {found.cluster.dtype}, which the cluster's peak is of; the run computes "
            f"in {training.dtype}"
        )
    lines += [
        f"  {words:40} {getattr(found.time, part):9.3g} s" for part, words in STEP_PARTS.items()
    ]
    each = found.config.tokens_per_step
    cost = "" if found.cost is None else f", cost {found.cost:,.0f}"
    lines += [
        f"MFU {found.mfu:.1%}, bubble {found.time.bubble_fraction:.1%}",
        f"{training.steps:,} steps of {each:,} tokens, {training.steps * each:.4g} in all:",
        f"  {days(found.days)}, {found.gpu_hours:,.0f} GPU-hours{cost}",
    ]
    return lines


def _table(candidates: Sequence["Candidate"]) -> list[str]:
    """The best of each layout, of the first ones and of the one that was asked for."""
    lines = [
        f"{'place':>5}  {'layout':24} {'micro':>5} {'recompute':>9} {'memory':>8} {'step':>9} "
        f"{'MFU':>6}"
    ]
    seen: set[Any] = set()
    for each in candidates:
        if each.layout in seen:
            continue
        seen.add(each.layout)
        if len(seen) <= _SHOWN or each.asked:
            lines += _rows(each)
    fit = sum(each.plan is not None and each.plan.fits for each in candidates)
    refused = sum(each.plan is None for each in candidates)
    lines += wrap(
        f"{len(candidates):,} plans: {fit:,} that fit, by their time; "
        f"{len(candidates) - fit - refused:,} that do not, by their memory; {refused:,} layouts "
        f"that cannot be had. Of {len(seen):,} layouts each one's best counts here; * is the one "
        "asked for. --json has all.",
        WIDTH,
    )
    return lines


def _rows(candidate: "Candidate") -> list[str]:
    from teleflm.parallel.memory import size_text

    place = f"{'*' if candidate.asked else ''}{candidate.place}"
    row, found = f"{place:>5}  {candidate.layout!s:24}", candidate.plan
    if found is not None:
        kind = found.config.parallel.activation_checkpointing
        row += (
            f" {found.micro_batch:5} {kind:>9} {size_text(found.largest.total):>8} "
            f"{found.time.seconds:7.3g} s {found.mfu:6.1%}"
        )
    indent = " " * 7
    reason = wrap(candidate.reason, WIDTH, initial_indent=indent, subsequent_indent=indent)
    return [row.rstrip(), *reason]
