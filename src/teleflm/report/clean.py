"""report.html of cleaned text, from its clean.json."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from teleflm.report.figures import INK, MUTED, STAGE_COLOURS
from teleflm.report.page import Chart, chart, write_page
from teleflm.report.words import count, percent, whole

_BAR_INCHES, _WIDTH_INCHES = 0.34, 8.6


def write_clean_report(path: Path, content: dict[str, Any]) -> Path:
    """Write the page of what clean.json says.

    Raises:
        MissingExtraError: jinja2 or matplotlib is not installed.
    """
    steps, sources = content["steps"], content["sources"]
    read, kept = (sum(s[key] for s in sources.values()) for key in ("bytes", "kept_bytes"))
    return write_page(
        path,
        "clean.html",
        title=content["title"],
        folder=path.parent,
        lede=[
            f"{whole(read / 1e6)} MB of text were read from {len(sources)} sources and "
            f"{whole(kept / 1e6)} MB kept, {percent(kept / read) if read else 'none'}."
        ],
        steps=steps,
        sources=sources,
        without_text=content["without_text"],
        has_tokens=any(source["tokens"] is not None for source in sources.values()),
        funnel=_funnel(steps, sources),
        colours={name: index % len(STAGE_COLOURS) for index, name in enumerate(sources)},
        histograms={step["name"]: _histogram(step) for step in steps if step["scores"]},
    )


def _funnel(steps: Sequence[dict[str, Any]], sources: dict[str, Any]) -> Chart:
    """What is left after each step, by source."""
    names = ["read", *(step["name"] for step in steps)]
    columns = {
        source: [figures["bytes"]]
        + [step["sources"].get(source, {}).get("bytes_out", 0) for step in steps]
        for source, figures in sources.items()
    }

    def draw(axes: Any) -> None:
        left = [0.0] * len(names)
        for index, values in enumerate(columns.values()):
            size = [value / 1e6 for value in values]
            axes.barh(
                names, size, left=left, color=STAGE_COLOURS[index % len(STAGE_COLOURS)], height=0.7
            )
            left = [a + b for a, b in zip(left, size, strict=True)]
        for row, end in enumerate(left):
            axes.annotate(
                f"{end:,.1f}",
                (end, row),
                xytext=(5, 0),
                textcoords="offset points",
                va="center",
                color=INK,
            )
        axes.invert_yaxis()
        axes.grid(visible=False)
        axes.margins(x=0.1)
        axes.set_xlabel("MB of text")

    totals = [sum(values[row] for values in columns.values()) for row in range(len(names))]
    said = ", ".join(f"{n} {t / 1e6:,.1f}" for n, t in zip(names, totals, strict=True))
    size = (_WIDTH_INCHES, 0.9 + _BAR_INCHES * len(names))
    return chart("funnel", size, f"MB of text left after each step: {said}", draw)


def _histogram(step: dict[str, Any]) -> Chart:
    scores = step["scores"]
    bins = len(scores)

    def draw(axes: Any) -> None:
        axes.bar(
            [(index + 0.5) / bins for index in range(bins)],
            scores,
            width=0.9 / bins,
            color=STAGE_COLOURS[0],
        )
        axes.set_xlim(0, 1)
        axes.set_xlabel("score")
        axes.set_ylabel("documents", color=MUTED)
        axes.yaxis.set_major_formatter(lambda value, _: count(value))

    most = max(range(bins), key=scores.__getitem__)
    said = f"documents by score; most have one of {most / bins:.2f} to {(most + 1) / bins:.2f}"
    return chart(f"scores-{step['name']}", (_WIDTH_INCHES, 2.6), said, draw, "Scores")
