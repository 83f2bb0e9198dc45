"""report.html of a series: the whole story on one page."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path

from teleflm.growth.event import IN_WORDS
from teleflm.report import figures, tables
from teleflm.report.evaluation import rows, stage_evaluations
from teleflm.report.figures import GrowthMark, XAxis
from teleflm.report.page import Chart, chart, write_page
from teleflm.report.records import Timeline, Trace, read_trace, steps_a_point
from teleflm.report.summary import Growth, Summary, read_summary
from teleflm.report.words import count, decimal, duration, error, listing, power, times

PANELS = {
    "lr": "Learning rate",
    "ramp": "How far the masks are open",
    "grad_norm": "Gradient norm",
}


def write_series_report(series_dir: Path) -> Path:
    """Write DIR/report.html from DIR/summary.json and the records of the stages' run folders.

    Raises:
        DataError: no summary, or a damaged one.
        MissingExtraError: matplotlib or jinja2 is not installed.
    """
    summary = read_summary(series_dir)
    traces = stage_traces(series_dir, summary)
    marks = growth_marks(summary)
    evaluations = stage_evaluations(series_dir, summary)
    heads, family = tables.family(summary.stages)
    checks = tables.checks(summary.growths)
    return write_page(
        series_dir / "report.html",
        "series.html",
        title=summary.title,
        grown=_grown_folders(series_dir, summary),
        summary=summary,
        event_words=IN_WORDS,
        folder=series_dir,
        lede=lede(summary, checks),
        family_heads=heads,
        family=family,
        averaged=steps_a_point(traces),
        losses=loss_charts(traces, marks),
        panels=panels(traces, marks),
        domains=domain_charts(traces, marks),
        bpb_domains=_domains(summary),
        evaluations=evaluations,
        evaluation_rows=rows(evaluations),
        checks=checks,
        strips=[(growth, tables.strip(growth, summary)) for growth in summary.growths],
        prompts=_by_prompt(summary),
        stage_index={stage.name: index for index, stage in enumerate(summary.stages)},
        worst_function=worst_function(summary.growths),
        shape_of=tables.shape_of,
    )


def stage_traces(series_dir: Path, summary: Summary) -> list[Trace]:
    """The records of each stage's run folder, in order."""
    return [read_trace(series_dir / stage.run_dir, stage.name) for stage in summary.stages]


def growth_marks(summary: Summary) -> list[GrowthMark]:
    """The growths as the charts show them."""
    return [
        GrowthMark(f"grown to {growth.to}", growth.step, growth.ramp or 0)
        for growth in summary.growths
    ]


def loss_charts(traces: Sequence[Trace], marks: Sequence[GrowthMark]) -> list[Chart]:
    """Loss over tokens and over FLOPs; none before the first step."""
    if not any(trace.metrics for trace in traces):
        return []
    timeline = Timeline(traces)
    held_out = [row.get("loss") for trace in traces for row in trace.evaluations]
    fall = (
        f"Held-out loss goes from {decimal(held_out[0])} to {decimal(held_out[-1])}. "
        if held_out
        else ""
    )
    views: list[tuple[XAxis, str, Callable[[float | None], str]]] = [
        ("tokens", "tokens read", count),
        ("flops", "FLOPs spent", power),
    ]
    charts = []
    for x, title, form in views:
        places = [form(float(timeline.at(mark.step, x))) for mark in marks]
        grown = f"Growths at {listing(places)}." if places else ""
        draw = partial(figures.draw_loss, traces=traces, marks=marks, x=x)
        alt = f"Line chart of the loss over {title}. {fall}{grown}"
        charts.append(chart(f"loss-{x}", (10.4, 4.2), alt, draw, f"Loss over {title}"))
    return charts


def panels(traces: Sequence[Trace], marks: Sequence[GrowthMark]) -> list[Chart]:
    """The small charts of what steered the training; those with figures only."""
    return [
        chart(
            key,
            (3.6, 2.3),
            f"Line chart over steps: {title.lower()}.",
            partial(figures.draw_series, traces=traces, marks=marks, key=key),
            title,
        )
        for key, title in PANELS.items()
        if any(row.get(key) is not None for trace in traces for row in trace.metrics)
    ]


def domain_charts(traces: Sequence[Trace], marks: Sequence[GrowthMark]) -> list[Chart]:
    """Bits per byte over tokens, a chart a domain."""
    rows = [row.get("bpb", {}) for trace in traces for row in trace.evaluations]
    # The domain's name stands in the page, whose fonts have every script, not in the drawing.
    return [
        chart(
            f"domain-{index}",
            (3.6, 2.3),
            f"Line chart of bits per byte on {domain} over tokens, from "
            f"{decimal(_values(rows, domain)[0])} to {decimal(_values(rows, domain)[-1])}.",
            partial(figures.draw_domain, traces=traces, marks=marks, domain=domain),
            domain,
        )
        for index, domain in enumerate(dict.fromkeys(domain for row in rows for domain in row))
    ]


def _values(rows: Sequence[dict[str, float | None]], domain: str) -> list[float | None]:
    return [row[domain] for row in rows if domain in row]


def lede(summary: Summary, checks: Sequence[tables.Check]) -> list[str]:
    """What was done, in sentences; only what the summary knows is said."""
    stages, sentences = summary.stages, []
    if stages:
        read = sum(stage.tokens or 0 for stage in stages)
        took = f" in {duration(summary.seconds)}" if summary.seconds is not None else ""
        first = f"A model of {count(stages[0].parameters)} parameters was trained"
        domains = list(summary.data.domains)
        text = f" of {listing(domains)} text" if 0 < len(domains) <= 5 else ""
        sizes = [count(stage.parameters) for stage in stages[1:]]
        grown = f" and grown {times(len(sizes))}, to {listing(sizes)}," if sizes else ""
        sentences.append(f"{first}{grown} on {count(read)} tokens{text}{took}.")
    if summary.growths:
        sentences.append(_verdict(summary.growths, checks))
    if summary.exports:
        formats = listing([export.format for export in summary.exports])
        sentences.append(f"The last model is exported as {formats}.")
    return sentences


def _verdict(growths: Sequence[Growth], checks: Sequence[tables.Check]) -> str:
    if not all(check.holds for check in checks):
        return "Not every growth is certified: the table below says which figure is missing or bad."
    each = "Neither growth" if len(growths) == 2 else "No growth"
    each = "The growth did not change" if len(growths) == 1 else f"{each} changed"
    return (
        f"{each} what the model computes: the largest change of any output was "
        f"{error(worst_function(growths))} of the largest."
    )


def worst_function(growths: Sequence[Growth]) -> float | None:
    """The largest float64 logit error of all growths, None where none was measured."""
    proofs = [growth.certificate for growth in growths if growth.certificate]
    found = [proof.function.max_relative_logit_error for proof in proofs]
    return max((value for value in found if value is not None), default=None)


def _grown_folders(series_dir: Path, summary: Summary) -> list[Path]:
    """The checkpoint that each growth made, as far as they are still there."""
    paths = [series_dir / growth.checkpoint for growth in summary.growths if growth.checkpoint]
    return [path for path in paths if path.exists()]


def _domains(summary: Summary) -> list[str]:
    every = [d for stage in summary.stages for d in (*stage.bpb_before, *stage.bpb_after)]
    return list(dict.fromkeys(every))


def _by_prompt(summary: Summary) -> list[tuple[str, list[tuple[str, str]]]]:
    """Each prompt with (stage, continuation) pairs."""
    order = list(dict.fromkeys(sample.prompt for sample in summary.samples))
    ordered = sorted(summary.samples, key=lambda sample: order.index(sample.prompt))
    return [
        (prompt, [(sample.stage, sample.text) for sample in samples])
        for prompt, samples in groupby(ordered, key=lambda sample: sample.prompt)
    ]
