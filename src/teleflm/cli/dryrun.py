"""teleflm dryrun."""

from itertools import chain
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from teleflm.errors import ConfigError

if TYPE_CHECKING:
    from teleflm.planning.dryrun import DryRun
    from teleflm.planning.job import StageRun


def dryrun(
    run: Annotated[Path, typer.Argument(metavar="RUN.yaml", help="The run's description.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="key=value", help="Settings laid over it.")
    ] = None,
    world_size: Annotated[int, typer.Option(min=1, help="All ranks of the job.")] = 1,
    rank: Annotated[
        int | None, typer.Option(help="The one to run; else one of each pipeline stage.")
    ] = None,
    device: Annotated[
        Literal["cuda", "cpu"], typer.Option(help="What the job would compute on.")
    ] = "cuda",
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Of the whole job, write dryrun.json and report.html there too."
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """Run a step of a job without its hardware: the real code at full size, on tensors without
    values, with its bytes, FLOPs and collectives counted.

    Example: teleflm dryrun examples/tele-flm-1t.yaml --world-size 896 --rank 0
    """
    from teleflm.cli.job_page import check_out, write_dryrun
    from teleflm.cli.progress import count_progress
    from teleflm.config.run import settled_dtype
    from teleflm.planning.dryrun import dry_run
    from teleflm.planning.job import dry_job
    from teleflm.planning.local import auto_of_kind
    from teleflm.planning.run import planned_run

    if out is not None:
        if rank is not None:
            raise ConfigError("--out is for the whole job; leave out --rank, or --out")
        check_out(out, "dryrun")
    config = settled_dtype(planned_run(run, overrides or ()), auto_of_kind(device))
    if rank is not None:
        done = dry_run(config, world_size, rank, device)
        typer.echo(dumps(facts(done)) if json else "\n".join(_told(done)))
        return
    with count_progress("dry run", "ranks") as tell:
        stages = dry_job(config, world_size, device, tell)
    found = {"stages": [{**facts(stage.run), "is_run": stage.is_run} for stage in stages]}
    typer.echo(dumps(found) if json else "\n".join(_table(stages)))
    if out is not None:
        typer.echo(f"the report: {write_dryrun(out, found, run, world_size)}", err=json)


def facts(done: "DryRun") -> dict[str, Any]:
    """The keys that `dryrun --json` prints of a rank."""
    memory = {**done.kept, "activations": done.activations, "peak": done.peak}
    layout = done.layout
    return {
        "rank": done.rank,
        "layout": {"tp": layout.tp, "pp": layout.pp, "dp": layout.dp},
        "stage_layers": list(chain(*done.stage_layers)),
        "parameters_local": done.parameters,
        "memory_bytes": memory,
        "flops": sum(done.flops.values()),
        "flops_by_operator": dict(done.flops),
        "collectives": {
            name: {"count": traffic.count, "bytes": traffic.bytes}
            for name, traffic in done.collectives.items()
        },
        "micro_batches": done.micro_batches,
        "micro_batches_run": done.run,
    }


def _told(done: "DryRun") -> list[str]:
    from teleflm.parallel.memory import size_text

    layers = ", ".join(f"{part.start} to {part.stop - 1}" for part in done.stage_layers)
    lines = [
        f"rank {done.rank} of {done.layout.ranks}: {done.layout}; layers {layers}",
        f"parameters  {done.parameters:,}",
    ]
    for kind, held in done.kept.items():
        lines.append(f"  {kind:12} {size_text(held):>9}")
    lines += [
        f"  {'activations':12} {size_text(done.activations):>9}   gathered weights and buffers too",
        f"  {'peak':12} {size_text(done.peak):>9}",
        f"FLOPs a step  {sum(done.flops.values()):.4g}",
        f"{'collectives a step':24} {'count':>9} {'bytes':>10}",
    ]
    for name, traffic in done.collectives.items():
        lines.append(f"  {name:22} {traffic.count:9,} {size_text(traffic.bytes):>10}")
    if done.run < done.micro_batches:
        lines.append(
            f"{done.run} of {done.micro_batches} micro-batches were run, with the pipeline full; "
            "the others are counted as the last one"
        )
    return lines


def _table(stages: list["StageRun"]) -> list[str]:
    from teleflm.parallel.memory import size_text

    first = stages[0].run
    lines = [
        f"{first.layout}: {first.layout.ranks} ranks",
        f"{'rank':>5} {'layers':>7} {'parameters':>15} {'kept':>9} {'peak':>9} {'FLOPs':>10} "
        f"{'sent':>9}",
    ]
    for stage in stages:
        run = stage.run
        layers = sum(len(part) for part in run.stage_layers)
        sent = sum(traffic.bytes for traffic in run.collectives.values())
        mark = " " if stage.is_run else "*"
        lines.append(
            f"{run.rank:5} {layers:7} {run.parameters:15,} {size_text(sum(run.kept.values())):>9} "
            f"{size_text(run.peak):>8}{mark} {sum(run.flops.values()):10.4g} {size_text(sent):>9}"
        )
    if not all(stage.is_run for stage in stages):
        lines.append("* between two stages that were run")
    if first.run < first.micro_batches:
        lines.append(
            f"{first.run} of {first.micro_batches} micro-batches were run; the others are counted "
            "as the last one"
        )
    return lines
