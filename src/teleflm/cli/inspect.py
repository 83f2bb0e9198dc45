"""teleflm inspect."""

from json import dumps
from pathlib import Path
from typing import Annotated, Any

import typer


def inspect(
    model: Annotated[
        str, typer.Argument(metavar="MODEL|CKPT", help="A preset, YAML, folder or checkpoint.")
    ],
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """Show a model's shape, parameters and axes, and a checkpoint's progress and lineage.

    Example: teleflm inspect tele-flm-1t
    """
    facts = _facts(model)
    if json:
        typer.echo(dumps(facts))
    else:
        _show(model, facts)


def _facts(model: str) -> dict[str, Any]:
    from teleflm.checkpoint.load import find_checkpoint
    from teleflm.checkpoint.manifest import MANIFEST, read_manifest
    from teleflm.config.resolve import PUBLISHED_PARAMETERS, resolve_model
    from teleflm.growth.ramp import ramp_at
    from teleflm.model.axes import parameter_count, parameters_of

    path = Path(model)
    progress: dict[str, Any] = {}
    if (path / MANIFEST).is_file() or (path / "checkpoints").is_dir():
        manifest = read_manifest(find_checkpoint(path))
        config = manifest.model
        progress = {
            "step": manifest.step,
            "tokens": manifest.tokens,
            "flops": manifest.flops,
            "lineage": [event.model_dump(by_alias=True) for event in manifest.lineage],
            "ramp": ramp_at(config, manifest.lineage, manifest.step).progress,
        }
    else:
        config = resolve_model(model)
    return {
        "parameters": parameter_count(config),
        "parameters_published": PUBLISHED_PARAMETERS.get(model),
        "config": config.model_dump(),
        "logit_multiplier": config.logit_multiplier,
        "axes": {
            pattern: [axis.value for axis in parameter.axes]
            for pattern, parameter in parameters_of(config).items()
        },
        **progress,
    }


def _show(name: str, facts: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from teleflm.config.model import ModelConfig
    from teleflm.model.axes import parameters_of

    console = Console(width=None if Console().is_terminal else 80)
    config = ModelConfig(**facts["config"])
    published = facts["parameters_published"]
    console.print(
        f"[bold]{escape(name)}[/bold]: {facts['parameters']:,} parameters", highlight=False
    )
    if published:
        console.print(f"published as {published / 1e9:,.2f} B", highlight=False)
    console.print(
        "  ".join(f"{key} {value}" for key, value in facts["config"].items()), highlight=False
    )
    console.print(f"logit multiplier {facts['logit_multiplier']:g}", highlight=False)
    table = Table("parameter", "axes", "shape", "µP")
    for pattern, parameter in parameters_of(config).items():
        table.add_row(
            pattern.removesuffix(".weight").replace("model.layers.*", "…"),
            " × ".join(axis.value for axis in parameter.axes),
            " × ".join(f"{size:,}" for size in parameter.shape(config)),
            "matrix" if parameter.is_matrix_like else "vector",
        )
    console.print(table)
    if "step" in facts:
        console.print(
            f"step {facts['step']:,}, {facts['tokens']:,} tokens, ramp {facts['ramp']:g}",
            highlight=False,
        )
        for event in facts["lineage"]:
            console.print(
                f"  step {event['step']:,}: {event['operator']}{_details(event)}", highlight=False
            )


def _details(event: dict[str, Any]) -> str:
    """What an event of a lineage did: to the model, to the batches, or to the precision."""
    if event["reason"]:
        return f", {event['batches']:,} batches: {event['reason']}"
    if event["precision"]:
        return f", in {event['precision']} from here on"
    to = event["to"]
    return f" → hidden {to['hidden_size']}, {to['num_hidden_layers']} layers, seed {event['seed']}"
