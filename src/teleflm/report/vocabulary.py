"""A picture of tokenizers: tokens per byte by domain."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from teleflm.data.vocabulary_report import Fit
from teleflm.report.figures import MUTED, colour_of, png

_WIDTH = 11.0


def write_vocabulary_picture(fits: Mapping[str, Fit], out: Path) -> None:
    """Write a PNG with a bar for each tokenizer and domain.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    domains = len(next(iter(fits.values())).tokens_per_byte)
    height = 1.6 + 0.24 * domains * (len(fits) + 1)
    out.parent.mkdir(parents=True, exist_ok=True)
    png(out, (_WIDTH, height), lambda axes: draw_tokens_per_byte(axes, fits))


def draw_tokens_per_byte(axes: Any, fits: Mapping[str, Fit]) -> None:
    """Bars from the top down: a group for each domain, in each the tokenizers in their order."""
    thickness = 1 / (len(fits) + 1)
    for place, (name, fit) in enumerate(fits.items()):
        title, colour = _plain(name), colour_of(place)
        rates = list(fit.tokens_per_byte.values())
        at = [group + place * thickness for group in range(len(rates))]
        bars = axes.barh(at, rates, height=thickness * 0.9, color=colour, label=title)
        axes.bar_label(bars, fmt="%.3f", padding=3, fontsize=9, color=MUTED)
    domains = [_plain(name) for name in next(iter(fits.values())).tokens_per_byte]
    middle = (len(fits) - 1) * thickness / 2
    axes.set_yticks([group + middle for group in range(len(domains))], domains)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x")
    axes.margins(x=0.08, y=0.02)
    axes.set_xlabel("tokens per UTF-8 byte: fewer are better")
    axes.figure.legend(loc="outside upper left", frameon=False, ncols=min(len(fits), 3))


def _plain(name: str) -> str:
    """A name that is not taken for mathematics."""
    return name.replace("$", r"\$")
