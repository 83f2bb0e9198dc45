"""The line charts: drawn by matplotlib, coloured by the page.

A chart is drawn in the light theme's colours. In the page they are replaced by the style sheet's
variables, and the text by the page's own font, so that a chart follows the reader's theme.
"""

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from teleflm.errors import MissingExtraError
from teleflm.report.records import Array, Timeline, Trace, column, steps_a_point, thinned
from teleflm.report.words import count

STAGE_COLOURS = ("#3566a8", "#b86f1b", "#2c8a6d", "#8a4f9e", "#a83f4c")
INK, MUTED, RULE, SHADE, CARD = "#20242b", "#6b7280", "#d9dce1", "#eef0f3", "#ffffff"
_VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    RULE: "var(--rule)",
    SHADE: "var(--shade)",
    CARD: "var(--card)",
    **{colour: f"var(--stage-{index})" for index, colour in enumerate(STAGE_COLOURS)},
}
# Over this first share of the steps the loss falls from
# log(vocabulary), which would press the rest flat.
_LEFT_OUT = 0.12

_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["Helvetica Neue", "Helvetica", "Arial", "Liberation Sans", "DejaVu Sans"],
    "font.size": 11,
    "figure.constrained_layout.w_pad": 0.08,
    "figure.constrained_layout.h_pad": 0.08,
    "text.color": INK,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "xtick.major.width": 0.7,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
}

_PREFIXES = (
    (1e24, "yotta"),
    (1e21, "zetta"),
    (1e18, "exa"),
    (1e15, "peta"),
    (1e12, "tera"),
    (1e9, "giga"),
    (1.0, ""),
)

XAxis = Literal["tokens", "flops", "step"]


@dataclass(frozen=True)
class GrowthMark:
    """Where a growth stands in a chart: after `step`, its masks opening over `ramp` steps."""

    label: str
    step: int
    ramp: int


def colour_of(index: int) -> str:
    """The colour of a stage; after the last they begin again."""
    return STAGE_COLOURS[index % len(STAGE_COLOURS)]


def svg(name: str, size: tuple[float, float], draw: Callable[[Any], None]) -> str:
    """A chart as an `<svg>` element to set into a page.

    Args:
        name: of the chart; no two in a page may share it.
        size: inches, at 72 units of the drawing to the inch.
        draw: draws into matplotlib's axes.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    buffer = io.StringIO()
    _render(size, draw, buffer, "svg", name)
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.S)
    # Group ids repeat from chart to chart, and nothing refers to them.
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = re.sub(r'<svg .*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1">', text, count=1)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, variable)
    return text


def png(path: Any, size: tuple[float, float], draw: Callable[[Any], None]) -> None:
    """The same as a PNG file on white.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    _render(size, draw, path, "png", "picture")


def _render(
    size: tuple[float, float], draw: Callable[[Any], None], target: Any, kind: str, salt: str
) -> None:
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError("matplotlib", "report") from None
    # The salt keeps the ids of one chart's clip paths and markers apart from another's.
    style: Any = {**_STYLE, "svg.hashsalt": salt}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.add_subplot())
        figure.savefig(target, format=kind, dpi=160, transparent=kind == "svg")


def draw_loss(axes: Any, traces: Sequence[Trace], marks: Sequence[GrowthMark], x: XAxis) -> None:
    """Training loss faint, held-out loss marked, growths as lines and their ramps as bands."""
    timeline, size = Timeline(traces), steps_a_point(traces)
    for index, trace in enumerate(traces):
        colour = colour_of(index)
        if trace.metrics:
            at, loss = (thinned(trace.column(key), size) for key in (x, "loss"))
            axes.plot(at, loss, color=colour, alpha=0.35, linewidth=0.9)
        axes.plot(
            timeline.at(column(trace.evaluations, "step"), x),
            column(trace.evaluations, "loss"),
            color=colour,
            marker="o",
            markersize=4,
        )
    losses = [
        (column(rows, "step"), column(rows, "loss"))
        for trace in traces
        for rows in (trace.metrics, trace.evaluations)
    ]
    _focus(axes, losses, timeline)
    _finish(axes, traces, marks, timeline, x)
    for row, mark in enumerate(marks):
        axes.annotate(
            mark.label,
            (timeline.at(mark.step, x), 1.0),
            xycoords=("data", "axes fraction"),
            # A row each: over FLOPs two growths may stand closer than a label is wide.
            xytext=(-6, -2 - 16 * row),
            textcoords="offset points",
            ha="right",
            va="top",
            fontsize=10.5,
            bbox={"facecolor": CARD, "edgecolor": "none", "pad": 1.5},
        )
    axes.set_ylabel("loss, nats per token")


def draw_domain(
    axes: Any, traces: Sequence[Trace], marks: Sequence[GrowthMark], domain: str
) -> None:
    """Bits per byte of one domain over tokens."""
    timeline = Timeline(traces)
    drawn: list[tuple[Array, Array]] = []
    for index, trace in enumerate(traces):
        rows = [row for row in trace.evaluations if domain in row.get("bpb", {})]
        values = column([row["bpb"] for row in rows], domain)
        steps = column(rows, "step")
        drawn.append((steps, values))
        axes.plot(
            timeline.at(steps, "tokens"), values, color=colour_of(index), marker="o", markersize=3.5
        )
    _focus(axes, drawn, timeline)
    _finish(axes, traces, marks, timeline, "tokens")


def draw_series(
    axes: Any,
    traces: Sequence[Trace],
    marks: Sequence[GrowthMark],
    key: str,
) -> None:
    """One key of the metrics over steps."""
    from matplotlib.ticker import LogLocator

    for index, trace in enumerate(traces):
        if trace.metrics:
            at, values = (thinned(trace.column(k), steps_a_point(traces)) for k in ("step", key))
            axes.plot(at, values, color=colour_of(index), linewidth=1.3)
    if key == "grad_norm":
        axes.set_yscale("log", subs=[])
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter("{x:g}")
    else:
        axes.set_ylim(bottom=0)
        axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 4), useMathText=True)
    _finish(axes, traces, marks, Timeline(traces), "step")


def _finish(
    axes: Any,
    traces: Sequence[Trace],
    marks: Sequence[GrowthMark],
    timeline: Timeline,
    x: XAxis,
) -> None:
    """Growth marks and the horizontal axis, whose first and last moment touch the frame."""
    for mark in marks:
        start, end = (timeline.at(step, x) for step in (mark.step, mark.step + mark.ramp))
        axes.axvspan(start, end, color=SHADE, linewidth=0, zorder=0)
        axes.axvline(start, color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
    ends = np.concatenate([trace.column(x) for trace in traces] or [np.empty(0)])
    ends = ends[np.isfinite(ends)]
    if len(ends) > 1:
        left = 0.0 if ends[0] < 0.05 * ends[-1] else ends[0]
        axes.set_xlim(left - 0.012 * (ends[-1] - left), ends[-1] + 0.012 * (ends[-1] - left))
    _label_x(axes, x, ends)


def _label_x(axes: Any, x: XAxis, values: Array) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=8 if x == "flops" else 5, integer=x == "step"))
    if x == "flops":
        size, unit = next((s, u) for s, u in _PREFIXES if s == 1.0 or values.max(initial=0.0) >= s)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v / size:.3g}"))
        axes.set_xlabel(f"{unit}FLOPs")
    else:
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: count(v)))
        axes.set_xlabel("tokens" if x == "tokens" else "step")


def _focus(axes: Any, drawn: Sequence[tuple[Array, Array]], timeline: Timeline) -> None:
    """Limit the vertical axis to what was measured after the first steps of the lineage."""
    late = [values[steps > _LEFT_OUT * timeline.last_step] for steps, values in drawn]
    values = np.concatenate([*late, np.empty(0)])
    values = values[np.isfinite(values)]
    if len(values) > 1 and values.max() > values.min():
        margin = 0.06 * (values.max() - values.min())
        axes.set_ylim(values.min() - margin, values.max() + 2 * margin)
