"""What is said of a plan: in JSON, on the terminal and on its page."""

from dataclasses import asdict
from typing import Any

from teleflm.parallel.layout import Layout, stage_layers, stages_of
from teleflm.planning.closed import closed_form
from teleflm.planning.plan import Plan
from teleflm.planning.search import Candidate
from teleflm.planning.series import EVIDENCE, SeriesPlan
from teleflm.planning.series_law import SeriesByLaw
from teleflm.planning.timeline import timeline
from teleflm.prediction.runs import MILLION

STEP_PARTS = {
    "compute": "computation",
    "tensor": "tensor-parallel communication",
    "pipeline": "from stage to stage",
    "bubble": "bubble of the pipeline",
    "data": "weights and gradients, where not hidden",
    "update": "clipping and the optimizer's step",
}
"""Parts of a `StepTime` in words."""


def plan_facts(found: Plan) -> dict[str, Any]:
    """The keys that `plan --json` prints of a plan."""
    time = found.time
    return {
        "parameters": found.parameters,
        "ranks": found.layout.ranks,
        "layout": _axes(found.layout),
        "micro_batch": found.micro_batch,
        "activation_checkpointing": found.config.parallel.activation_checkpointing,
        "memory_bytes_per_rank": found.memory,
        "fits": found.fits,
        "breaks": found.breaks,
        "step_seconds": time.seconds,
        "step_seconds_by_part": {part: getattr(time, part) for part in STEP_PARTS},
        "mfu": found.mfu,
        "bubble_fraction": time.bubble_fraction,
        "steps": found.config.training.steps,
        "tokens": found.config.training.steps * found.config.tokens_per_step,
        "days": found.days,
        "gpu_hours": found.gpu_hours,
        "cost": found.cost,
    }


def candidate_facts(candidate: Candidate) -> dict[str, Any]:
    """The keys of a place of the search; what cannot be had has few."""
    facts = {"layout": _axes(candidate.layout), "fits": False}
    if candidate.plan is not None:
        facts = plan_facts(candidate.plan)
    return {
        **facts,
        "place": candidate.place,
        "asked": candidate.asked,
        "reason": candidate.reason,
    }


def series_facts(found: SeriesPlan, losses: SeriesByLaw | None = None) -> dict[str, Any]:
    """The keys that `plan --json` prints of a series, with those by a law."""
    total, scratch, even = found.total, found.scratch, found.break_even
    return {
        "fits": all(stage.plan.fits for stage in found.stages),
        **asdict(total),
        "stages": [
            {"name": stage.name, **plan_facts(stage.plan), "flops": stage.effort.flops}
            for stage in found.stages
        ],
        "scratch": asdict(scratch),
        "ratio": {
            "flops": total.flops / scratch.flops,
            "gpu_hours": total.gpu_hours / scratch.gpu_hours,
        },
        "break_even": None if even is None else asdict(even),
        "warnings": found.warnings,
        "evidence": [asdict(each) for each in EVIDENCE],
        **({} if losses is None else {"by_law": _law_facts(found, losses)}),
    }


def _law_facts(found: SeriesPlan, losses: SeriesByLaw) -> dict[str, Any]:
    return {
        "stages": [
            {
                "name": stage.name,
                "parameters": size * MILLION,
                "loss_before": loss.begin,
                "loss_after": loss.end,
                "head_start_tokens": loss.head_start * MILLION,
                "grow_after_tokens": None if loss.grow_after is None else loss.grow_after * MILLION,
                "measured": measured,
            }
            for stage, size, loss, measured in zip(
                found.stages, losses.sizes, losses.stages, losses.measured, strict=True
            )
        ],
        "scratch_loss": losses.scratch,
        "same_gpu_hours_loss": losses.same_cost,
        "earlier_token_worth": losses.earlier_token_worth,
        "pays": losses.pays,
        "reach_tokens": losses.reach * MILLION,
        "warnings": losses.warnings,
    }


def picture_facts(found: Plan) -> dict[str, Any]:
    """What the pictures of a plan need beside `plan_facts`."""
    config, layout = found.config, found.layout
    layers = stage_layers(config.final_model, layout.stages)
    each = layout.ranks // layout.pp
    ranks = []
    for rank in range(layout.pp):
        work = closed_form(config, layout, rank, found.cluster.kind)
        held = [layer for stage in stages_of(layout, rank * each) for layer in layers[stage]]
        memory = {**work.kept, "activations": work.activations}
        ranks.append({"rank": rank * each, "stage_layers": held, "memory_bytes": memory})
    return {
        "device_memory_bytes": found.cluster.memory,
        "schedule": config.parallel.schedule,
        "micro_batches": found.largest.micro_batches,
        "step_parts": {words: getattr(found.time, part) for part, words in STEP_PARTS.items()},
        "pipeline_ranks": ranks,
        "timeline": _timeline(found) if layout.pp > 1 else None,
    }


def _timeline(found: Plan) -> dict[str, Any]:
    played = timeline(found)
    return {
        "micro_batches": played.micro_batches,
        "idle_fraction": played.idle,
        "ranks": [
            [
                (box.action.kind, box.action.stage, box.action.micro_batch, box.start, box.end)
                for box in boxes
            ]
            for boxes in played.ranks
        ],
    }


def _axes(layout: Layout) -> dict[str, int]:
    return {"tp": layout.tp, "pp": layout.pp, "dp": layout.dp}
