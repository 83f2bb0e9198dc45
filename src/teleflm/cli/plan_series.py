"""`teleflm plan` of a SERIES.yaml."""

from collections.abc import Sequence
from json import dumps
from pathlib import Path
from textwrap import wrap

from teleflm.cli.out import WIDTH
from teleflm.parallel.memory import size_text
from teleflm.planning.facts import series_facts
from teleflm.planning.local import cluster_of
from teleflm.planning.series import EVIDENCE, Effort, SeriesPlan, plan_series, planned_series
from teleflm.planning.series_law import SeriesByLaw, by_law
from teleflm.prediction.runs import MILLION
from teleflm.report.words import count, decimal


def told_series(
    path: str,
    overrides: Sequence[str],
    cluster: str,
    search: bool,
    law: Path | None,
    json: bool,
) -> str:
    """What `teleflm plan` prints of a series.

    Args:
        path: the SERIES.yaml.
        overrides: laid over every stage.
        cluster: what it is to be on, by its name or file.
        search: each stage on the best layout that there is for it.
        law: what `teleflm predict --json` printed, to say the losses by.
        json: one JSON object instead of text.

    Raises:
        ConfigError, GrowthError, DataError: naming the file or the stage.
    """
    found = plan_series(planned_series(Path(path), overrides), cluster_of(cluster), search)
    losses = None if law is None else by_law(found, Path(path), law)
    if json:
        return dumps(series_facts(found, losses))
    how = ", each stage on its best layout" if search else ""
    text = "\n".join([f"{path} on {cluster}{how}", "", *_told(found)])
    if losses is not None:
        text += "\n".join(["", "", f"by the law of {law}", *_by_law(found, losses)])
    return text.replace("\N{NO-BREAK SPACE}", " ")


def _told(found: SeriesPlan) -> list[str]:
    last = found.stages[-1].name
    efforts = {stage.name: stage.effort for stage in found.stages}
    efforts |= {"the series": found.total, f"{last} from scratch": found.scratch}
    lines = [*_layouts(found), "", *_efforts(efforts)]
    if found.break_even is None:
        return [*lines, "", "It does not grow."]
    lines += ["", *_comparison(found), ""]
    for warning in found.warnings:
        lines += _item("", f"warning: {warning}")
    lines += ["Savings that were measured:"]
    for each in EVIDENCE:
        lines += _item("  ", f"{each.what}: {each.saving} ({each.source})")
    return lines


def _layouts(found: SeriesPlan) -> list[str]:
    width = max(len(stage.name) for stage in found.stages)
    lines = [f"{'':{width}} {'model':>7}  {'layout':20} micro recompute  memory     step    MFU"]
    for stage in found.stages:
        plan = stage.plan
        lines.append(
            f"{stage.name:{width}} {count(plan.parameters):>7}  {plan.layout!s:20} "
            f"{plan.micro_batch:5} {plan.config.parallel.activation_checkpointing:>9} "
            f"{size_text(plan.largest.total):>7} {plan.time.seconds:6.3g} s {plan.mfu:6.1%}"
        )
        if plan.breaks is not None:
            lines += wrap(f"does not fit: {plan.breaks}", WIDTH, initial_indent="  ")
    return lines


def _efforts(efforts: dict[str, Effort]) -> list[str]:
    width = max(map(len, efforts))
    priced = all(each.cost is not None for each in efforts.values())
    heading = f"{'':{width}} {'tokens':>9} {'FLOPs':>9} {'days':>9} {'GPU-hours':>12}"
    lines = [heading + (f" {'cost':>13}" if priced else "")]
    for name, each in efforts.items():
        lines.append(
            f"{name:{width}} {each.tokens:9.4g} {each.flops:9.3g} {each.days:9,.1f} "
            f"{each.gpu_hours:12,.0f}" + (f" {each.cost:13,.0f}" if priced else "")
        )
    return lines


def _comparison(found: SeriesPlan) -> list[str]:
    total, scratch, even = found.total, found.scratch, found.break_even
    assert even is not None
    last = found.stages[-1].name
    return wrap(
        f"The series takes {total.flops / scratch.flops:.1%} of the FLOPs and "
        f"{total.gpu_hours / scratch.gpu_hours:.1%} of the GPU-hours of the same tokens from "
        "scratch.",
        WIDTH,
    ) + wrap(
        f"Break-even: for the GPU-hours of the series, {last} could read {even.tokens:.4g} tokens "
        "from scratch. Growing pays if the grown model is better than that one: if a token of "
        f"those {even.earlier_tokens:.4g} before the last stage is worth at least "
        f"{even.earlier_token_worth:.2g} of a token at the last size.",
        WIDTH,
    )


def _by_law(found: SeriesPlan, losses: SeriesByLaw) -> list[str]:
    width = max(len(stage.name) for stage in found.stages)
    lines = [
        f"{'':{width}} {'model':>7} {'tokens':>9} {'begins':>7} {'ends':>7} {'measured':>8}  "
        "to grow after"
    ]
    for stage, size, loss, measured in zip(
        found.stages, losses.sizes, losses.stages, losses.measured, strict=True
    ):
        after = _after(loss.grow_after, losses.reach)
        lines.append(
            f"{stage.name:{width}} {count(size * MILLION):>7} {stage.effort.tokens:9.4g} "
            f"{decimal(loss.begin):>7} {loss.end:7.3f} {decimal(measured):>8}  {after}".rstrip()
        )
    last, even = found.stages[-1].name, found.break_even
    lines += ["", f"{last} from scratch, on as many tokens: {losses.scratch:.3f}"]
    if even is not None:
        pays = "pays" if losses.pays else "does not pay"
        lines += wrap(
            f"{last} from scratch, for as many GPU-hours: {losses.same_cost:.3f}. A token before "
            f"the last stage is worth {losses.earlier_token_worth:.2g} of one at the last size, "
            f"and break-even is {even.earlier_token_worth:.2g}: growing {pays}.",
            WIDTH,
        )
    for warning in losses.warnings:
        lines += _item("", f"warning: {warning}")
    return lines


def _after(tokens: float | None, reach: float) -> str:
    """When to grow, in a cell; none of the last stage."""
    if tokens is None:
        return ""
    beyond = tokens > reach
    return f"{'more than ' if beyond else ''}{min(tokens, reach) * MILLION:.4g} tokens"


def _item(indent: str, text: str) -> list[str]:
    below = indent + "  "
    return wrap(text, WIDTH, initial_indent=indent, subsequent_indent=below, break_on_hyphens=False)
