"""report.html of a plan, from its plan.json."""

from collections.abc import Sequence
from pathlib import Path

from teleflm.parallel.memory import size_text
from teleflm.report.job import LayoutFigures, Part, memory_chart, read_record
from teleflm.report.job_figures import (
    KINDS,
    PASSES,
    Box,
    Point,
    draw_search,
    draw_timeline,
    limit_is_near,
)
from teleflm.report.page import Chart, chart, write_page
from teleflm.report.words import decimal, percent, whole

RECORD = "plan.json"
# Layouts that the table shows; all are in the record.
_SHOWN = 20


class TimelineFigures(Part):
    """See `teleflm.planning.timeline.Timeline`; `idle_fraction` is that of each rank."""

    micro_batches: int
    idle_fraction: list[float]
    ranks: list[list[Box]]


class PipelineRank(Part):
    """What the first rank of a pipeline rank needs."""

    stage_layers: list[int]
    memory_bytes: dict[str, int]


class CandidateFigures(Part):
    """A place of the search; what cannot be had has no figures."""

    place: int
    asked: bool
    reason: str
    layout: LayoutFigures
    fits: bool
    micro_batch: int | None = None
    activation_checkpointing: str | None = None
    memory_bytes_per_rank: dict[str, int] | None = None
    step_seconds: float | None = None
    mfu: float | None = None

    @property
    def point(self) -> Point | None:
        """Where it stands in the picture."""
        if self.memory_bytes_per_rank is None or self.step_seconds is None:
            return None
        return Point(self.memory_bytes_per_rank["total"], self.step_seconds, self.fits)


class PlanFigures(Part):
    """The whole file; `step_parts` is `step_seconds_by_part` in words."""

    run: str
    cluster: str
    device_memory_bytes: int
    schedule: str
    micro_batches: int
    parameters: int
    ranks: int
    layout: LayoutFigures
    micro_batch: int
    activation_checkpointing: str
    memory_bytes_per_rank: dict[str, int]
    fits: bool
    breaks: str | None
    step_seconds: float
    step_parts: dict[str, float]
    mfu: float
    bubble_fraction: float
    days: float
    gpu_hours: float
    cost: float | None
    pipeline_ranks: list[PipelineRank]
    timeline: TimelineFigures | None
    candidates: tuple[CandidateFigures, ...] = ()


def read_plan(folder: Path) -> PlanFigures:
    """DIR/plan.json.

    Raises:
        DataError: there is none, or it is damaged.
    """
    return read_record(folder / RECORD, PlanFigures)


def write_plan_report(folder: Path) -> Path:
    """Write DIR/report.html from DIR/plan.json.

    Raises:
        DataError: there is none, or it is damaged.
        MissingExtraError: matplotlib or jinja2 is not installed.
    """
    plan = read_plan(folder)
    ranks, limit = [each.memory_bytes for each in plan.pipeline_ranks], plan.device_memory_bytes
    return write_page(
        folder / "report.html",
        "plan.html",
        title=f"{Path(plan.run).stem} on {Path(plan.cluster).stem}",
        folder=folder,
        lede=_lede(plan),
        plan=plan,
        kinds=KINDS,
        passes=_passes(plan.timeline),
        has_later_stages=_has_later_stages(plan),
        limit=limit,
        limit_is_drawn=limit_is_near([sum(kinds.values()) for kinds in ranks], limit),
        memory=memory_chart(ranks, limit),
        timeline=_timeline_chart(plan.timeline) if plan.timeline else None,
        search=_search_chart(plan) if plan.candidates else None,
        places=_places(plan.candidates),
        fitting=sum(each.fits for each in plan.candidates),
        refused=sum(each.point is None for each in plan.candidates),
    )


def _lede(plan: PlanFigures) -> list[str]:
    verdict = (
        f"It fits: the rank that needs most has {size_text(plan.memory_bytes_per_rank['total'])} "
        f"of {size_text(plan.device_memory_bytes)}."
        if plan.fits
        else f"It does not fit: {plan.breaks}."
    )
    chosen = "The fastest layout that fits is shown. " if plan.candidates and plan.fits else ""
    return [
        f"A model of {whole(plan.parameters)} parameters on {whole(plan.ranks)} ranks, "
        f"{plan.layout}, with micro-batches of {plan.micro_batch} and activation checkpointing "
        f"{plan.activation_checkpointing}. {chosen}{verdict}"
    ]


def _passes(timeline: TimelineFigures | None) -> dict[str, int]:
    """The passes that a timeline has, with their colours."""
    if timeline is None:
        return {}
    found = {box[0] for boxes in timeline.ranks for box in boxes}
    return {name: colour for name, colour in PASSES.items() if name in found}


def _has_later_stages(plan: PlanFigures) -> bool:
    boxes = plan.timeline.ranks[0] if plan.timeline else []
    return any(stage >= plan.layout.pp for _, stage, *_ in boxes)


def _timeline_chart(timeline: TimelineFigures) -> Chart:
    idle = timeline.idle_fraction
    alt = (
        f"A row for each of {len(timeline.ranks)} pipeline ranks, with a box for each pass of "
        f"{timeline.micro_batches} micro-batches. The gaps are the bubble: from "
        f"{percent(min(idle), 1)} to {percent(max(idle), 1)} of the time a rank waits."
    )
    height = min(9.0, 1.6 + 0.3 * len(timeline.ranks))
    return chart("timeline", (11.0, height), alt, lambda axes: draw_timeline(axes, timeline.ranks))


def _search_chart(plan: PlanFigures) -> Chart | None:
    """None where not one of the layouts can be had."""
    limit = plan.device_memory_bytes
    points = [each.point for each in plan.candidates if each.point is not None]
    first = plan.candidates[0]
    asked = next((each for each in plan.candidates if each.asked and each.point), None)
    words = "the fastest that fits" if first.fits else "the one that needs least"
    named = {first.place: f"{words}: {first.layout}"}
    if asked is not None:
        text = f"asked for: {asked.layout}"
        named[asked.place] = f"{words}, and asked for: {asked.layout}" if asked is first else text
    marked = [
        (named[each.place], each.point)
        for each in plan.candidates
        if each.place in named and each.point is not None
    ]
    if not marked:
        return None
    told = "; ".join(
        f"{name} with {size_text(point.memory)} and {decimal(point.seconds)} s"
        for name, point in marked
    )
    alt = (
        f"{len(points)} plans by memory and seconds of a step, "
        f"{sum(point.fits for point in points)} of them within {size_text(limit)} of a device. "
        f"Marked: {told}."
    )
    return chart("search", (11.0, 5.4), alt, lambda axes: draw_search(axes, points, limit, marked))


def _places(candidates: Sequence[CandidateFigures]) -> list[CandidateFigures]:
    """The best of each layout: the first ones, and the one that was asked for."""
    best = {str(each.layout): each for each in reversed(candidates)}
    places = sorted(best.values(), key=lambda each: each.place)
    return places[:_SHOWN] + [each for each in places[_SHOWN:] if each.asked]
