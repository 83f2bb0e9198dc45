"""Run folders with the losses of a law, written without training."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from teleflm.checkpoint.manifest import MANIFEST, Manifest
from teleflm.config.base import write_yaml
from teleflm.config.run import resolve_run, with_vocabulary
from teleflm.data.identity import Source
from teleflm.growth.event import Event
from teleflm.model.axes import parameter_count
from tests.report.made_up import write_lines
from tests.tiny import run_fields

STEPS, TOKENS_PER_STEP = 320, 64
TOKENS = STEPS * TOKENS_PER_STEP
SOURCE = Source(share=65_536, tokens=10_000, digest="aa", held_out="bb")
WIDTHS = (16, 24, 32, 48, 64, 96)

Edit = Callable[[dict[str, Any]], object]


def loss_of(size: float, tokens: float) -> float:
    """By a law in both, in millions."""
    return 1.5 + 0.5 * size**-0.3 + 0.2 * tokens**-0.25


def shape(width: int) -> dict[str, Any]:
    return {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_attention_heads": width // 8,
        "num_key_value_heads": width // 8,
    }


def write_run(
    folder: Path,
    width: int,
    *,
    edit: Edit = lambda manifest: None,
    metric: Callable[[int, float], float | None] = lambda step, loss: loss + 0.02,
    evaluations: bool = True,
    **sections: Any,
) -> Path:
    """A finished run whose held-out loss is the law's; `metric` makes a training loss of it.

    Args:
        edit: changes the manifest's fields.
        sections: of its RUN.yaml, see `run_fields`.
    """
    given = {"model": shape(width), "training": {"steps": STEPS}, "evaluation": {"every": 32}}
    fields = run_fields(Path("store"), folder, **{**given, **sections})
    fields["schedule"] = {"warmup_steps": 2, "min_ratio": 1.0, **sections.get("schedule", {})}
    config = with_vocabulary(resolve_run(fields, "made up"), 40)
    size, steps = parameter_count(config.model) / 1e6, config.training.steps
    losses = {step: loss_of(size, step * TOKENS_PER_STEP / 1e6) for step in range(1, steps + 1)}
    data: dict[str, Any] = {
        "step": steps,
        "tokens": steps * TOKENS_PER_STEP,
        "sequences": steps * 4,
        "flops": 0,
        "adam_steps": steps,
        "model": config.model,
        "lineage": (Event(operator="init", to=config.model, seed=config.seed),),
        "config": config,
        "data": {"text": SOURCE},
        "files": {},
    }
    edit(data)
    checkpoint = folder / "checkpoints" / f"step-{data['step']:08d}"
    checkpoint.mkdir(parents=True)
    (checkpoint / MANIFEST).write_text(Manifest(**data).model_dump_json(by_alias=True))
    write_yaml(folder / "config.yaml", config)
    metrics = [
        {"step": step, "tokens": step * TOKENS_PER_STEP, "loss": metric(step, loss)}
        for step, loss in losses.items()
    ]
    write_lines(folder / "metrics.jsonl", metrics)
    if evaluations:
        every = config.evaluation.every
        rows = [{"step": step, "loss": losses[step]} for step in range(every, steps + 1, every)]
        write_lines(folder / "evaluation.jsonl", rows)
    return folder


def write_runs(root: Path, **each: Any) -> list[Path]:
    """A run of each of `WIDTHS`."""
    return [write_run(root / f"w{width}", width, **each) for width in WIDTHS]
