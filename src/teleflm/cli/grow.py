"""teleflm grow."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from teleflm.config.formats import ExportKind

if TYPE_CHECKING:
    from teleflm.config.growth import WidthConfig
    from teleflm.training.growing import Plan


def grow(
    source: Annotated[
        Path, typer.Argument(metavar="SRC", help="A checkpoint, run or Hugging Face folder.")
    ],
    out: Annotated[Path, typer.Argument(metavar="DST", help="Folder for the grown model.")],
    to: Annotated[
        str, typer.Option(metavar="MODEL", help="A preset, YAML file or Hugging Face folder.")
    ],
    width: Annotated[
        str, typer.Option(help="mask, clone or zero, or by axis: hidden=clone,ffn=mask.")
    ] = "mask",
    depth: Annotated[
        Literal["mask", "zero", "copy"],
        typer.Option(help="How new layers begin; copy changes the function."),
    ] = "mask",
    place: Annotated[
        str,
        typer.Option(help="distance, even, stack, or the layer each new one follows: 3,3,7."),
    ] = "distance",
    ramp: Annotated[int, typer.Option(min=1, help="Steps in which masks open.")] = 5000,
    symmetry: Annotated[
        Literal["noise", "split", "keep"], typer.Option(help="How clones are told apart.")
    ] = "noise",
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Of the new weights.")] = 0,
    data: Annotated[
        Path | None, typer.Option(help="Token store to measure layers on; else the run's own.")
    ] = None,
    kind: Annotated[
        ExportKind | None,
        typer.Option(
            "--format",
            help="Make DST a folder as export does: the function only, with masks "
            "folded in. What trains on is a checkpoint, which DST is without this.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan only.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the checkpoint or export at DST.")
    ] = False,
) -> None:
    """Grow a checkpoint in width and depth: weights, both moments and all.

    MODEL's fields that are left out are the source's. Interrupted, the same command goes on.

    Example: teleflm grow runs/nano grown --to nano-102b --ramp 40
    """
    from teleflm.checkpoint.export import check_export_place
    from teleflm.checkpoint.open import model_at
    from teleflm.checkpoint.save import check_place
    from teleflm.cli.progress import rank_progress
    from teleflm.config.resolve import resolve_model
    from teleflm.config.run import DataConfig
    from teleflm.growth.grow import Growth
    from teleflm.parallel.world import world
    from teleflm.training.growing import carry_out, plan_growth

    growth = Growth(
        to=resolve_model(to, model_at(source)),
        width=_parse_width(width),
        depth=depth,
        place=_parse_place(place),
        ramp=ramp,
        symmetry=symmetry,
        seed=seed,
    )
    with world() as (ranks, _):
        if not dry_run:
            (check_place if kind is None else check_export_place)(out, force)
        text = DataConfig(path=str(data)) if data is not None else None
        plan = plan_growth(source, growth, text, kind)
        if not dry_run:
            share = plan.bytes(ranks.rank, ranks.count)
            with rank_progress("growing", share, ranks) as tell:
                carry_out(plan, out, force=force, tell=tell)
        if ranks.first:
            _print_plan(plan)
            if not dry_run:
                what = "ready" if kind is None else f"as {kind} in fp32, the function"
                typer.echo(f"{out}: {what} at step {plan.grown.step}")


def _print_plan(plan: "Plan") -> None:
    from teleflm.growth.operators import PROMISES

    for event in plan.events:
        before, after = event.source, event.to
        assert before is not None
        typer.echo(f"{event.grown_by}: {PROMISES[event.grown_by]}")
        for field, value in after.model_dump().items():
            old = getattr(before, field)
            if old != value:
                typer.echo(f"  {field}: {old} → {value}")
        if event.copies:
            typer.echo(f"  layers hold the old ones {_listed(event.copies)}")
        elif before.num_hidden_layers < after.num_hidden_layers:
            typer.echo(f"  old layers go to {_listed(event.layers)}")
        if event.ramp:
            typer.echo(f"  masks open over {event.ramp} steps")
        if event.symmetry:
            typer.echo(f"  symmetry of the clones: {event.symmetry}")
    if plan.measured_on is not None:
        typer.echo(f"layers were measured on {plan.measured_on}")
    if plan.kind is not None:
        typer.echo(f"as {plan.kind}: weights in fp32, masks folded in; moments are left behind")
    typer.echo(f"{plan.bytes() / 1e9:,.3f} GB on disk, about {plan.seconds:,.0f} s of one process")


def _listed(layers: tuple[int, ...]) -> str:
    return ", ".join(map(str, layers))


def _parse_width(text: str) -> "WidthConfig":
    from teleflm.config.growth import WidthConfig

    try:
        return WidthConfig.model_validate(text)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r}: give mask, clone or zero, or a list as hidden=clone,heads=clone,ffn=mask",
            param_hint="--width",
        ) from None


def _parse_place(text: str) -> str | list[int]:
    if text in ("distance", "even", "stack"):
        return text
    try:
        return [int(layer) for layer in text.split(",")]
    except ValueError:
        raise typer.BadParameter(
            f"{text!r}: give distance, even, stack or a list of layers as 3,3,7",
            param_hint="--place",
        ) from None
