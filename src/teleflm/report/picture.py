"""One wide picture of a series, for a README."""

from pathlib import Path
from typing import Any

from teleflm.report import figures
from teleflm.report.series import growth_marks, stage_traces
from teleflm.report.summary import Growth, Summary, read_summary
from teleflm.report.words import bound, count, decimal, error


def write_picture(series_dir: Path, out_png: Path) -> Path:
    """Write a PNG with the loss over tokens, the growths marked and certified.

    Raises:
        DataError: no summary, or a damaged one.
        MissingExtraError: matplotlib is not installed.
    """
    summary = read_summary(series_dir)
    traces, marks = stage_traces(series_dir, summary), growth_marks(summary)

    def draw(axes: Any) -> None:
        figures.draw_loss(axes, traces, marks, "tokens")
        axes.set_title(_heading(summary), loc="left", fontsize=14, fontweight="bold", pad=14)
        caption = "\n".join(filter(None, map(_caption, summary.growths)))
        axes.figure.supxlabel(
            caption, x=0.01, ha="left", fontsize=10, color=figures.MUTED, linespacing=1.5
        )

    figures.png(out_png, (11.0, 4.9), draw)
    return out_png


def _heading(summary: Summary) -> str:
    steps = [f"{stage.name} ({count(stage.parameters)})" for stage in summary.stages]
    return "  →  ".join(steps)


def _caption(growth: Growth) -> str:
    """The certificate of a growth in one line, empty where there is none."""
    proof = growth.certificate
    if proof is None:
        return ""
    function = proof.function.max_relative_logit_error
    trajectory = proof.trajectory.max_relative_loss_difference if proof.trajectory else None
    steps = proof.trajectory.steps if proof.trajectory else None
    bounds = proof.bounds
    return (
        f"Grown to {growth.to}: logits changed by {error(function)} (bound "
        f"{bound(bounds.function)}), losses of {steps} further steps by {error(trajectory)} (bound "
        f"{bound(bounds.trajectory)}), held-out loss {decimal(growth.loss_before)} → "
        f"{decimal(growth.loss_after)}"
    )
