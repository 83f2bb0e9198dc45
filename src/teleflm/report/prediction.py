"""What `teleflm predict --json` prints, which `teleflm plan --law` reads, and its page."""

from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from teleflm.report.figures import INK, MUTED, SHADE, STAGE_COLOURS
from teleflm.report.page import Chart, chart, write_page
from teleflm.report.records import read_object
from teleflm.report.words import count, decimal, percent


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class LawFigures(_Part):
    """L = a·C^b + c, with C in millions of parameters and L in nats a token."""

    a: float
    b: float
    c: float

    def at(self, size: float) -> float:
        """The loss of so many millions of parameters."""
        return float(self.a * size**self.b + self.c)


FALLING = "curves under a falling rate"
FALLS = (
    "what tokens do is read off curves whose learning rate falls: within a run the loss is not "
    "that of a run which ends there, and the interval does not know; give runs of three lengths"
)


class TokenLawFigures(_Part):
    """L = E + A·N^-alpha + B·D^-beta, with N in millions of parameters and D in millions of
    tokens. `source` is what the part of D is read off: `ends` of runs of several lengths, `curves`,
    or `FALLING`."""

    E: float
    A: float
    alpha: float
    B: float
    beta: float
    source: str

    def at(self, size: float, tokens: float) -> float:
        """The loss of so many millions of parameters after so many millions of tokens."""
        return float(self.E + self.A * size**-self.alpha + self.B * tokens**-self.beta)


class PointFigures(_Part):
    """A run that the law is of. `fitted` is the law's loss at its size; `left_out` says that it is
    kept out of the fit."""

    name: str
    parameters_million: float
    loss: float
    fitted: float
    left_out: bool

    @property
    def residual(self) -> float:
        """By how much the run is above the law."""
        return self.loss - self.fitted


class LeftOutFigures(_Part):
    """The largest sizes, predicted without them; `loss` is the mean of a size's runs."""

    parameters_million: float
    loss: float
    prediction: float
    interval: tuple[float, float]

    @property
    def relative_error(self) -> float:
        """Of the prediction, by the loss; above 0 where it was too high."""
        return self.prediction / self.loss - 1


class Place(_Part):
    """What is predicted: a size, its model's name and its tokens, as far as they are known."""

    parameters_million: float
    model: str | None
    tokens: float | None


class PredictionRecord(_Part):
    """All of it.

    Attributes:
        law: at the tokens of `at`.
        prediction: the loss there, in nats a token.
        interval: of the loss of a new run there, with a share of `level`.
        relative_error_left_out: the largest of `left_out`, without its sign.
        noise: the standard deviation of a run around the law.
        loss: which one the runs' is: `held-out`, `training`, or `given` in a points file.
        tokens: that each run read, None in a points file.
        vocab_size: of their models, None in a points file.
        token_law: None where the runs say nothing of other tokens.
        curve: (size, loss, low, high) of the law at the runs' tokens and a new run's interval,
            from the smallest size to the one of `at`.
        warnings: what speaks against it.
    """

    law: LawFigures
    prediction: float
    interval: tuple[float, float]
    level: float
    relative_error_left_out: float
    noise: float
    at: Place
    loss: str
    tokens: float | None
    vocab_size: int | None
    token_law: TokenLawFigures | None
    points: tuple[PointFigures, ...]
    left_out: tuple[LeftOutFigures, ...]
    curve: tuple[tuple[float, float, float, float], ...]
    warnings: tuple[str, ...]

    @property
    def of_other_tokens(self) -> bool:
        """Whether the prediction is for other tokens than the runs'."""
        return self.at.tokens != self.tokens


def read_prediction(path: Path) -> PredictionRecord:
    """A file with what `teleflm predict --json` printed.

    Raises:
        DataError: there is none, or it is something else; the message names the key.
    """
    writer = "teleflm predict with --json prints what belongs there"
    return read_object(path, PredictionRecord, writer, "print it again")


def write_prediction(path: Path, found: PredictionRecord) -> Path:
    """Write the page of a prediction.

    Raises:
        MissingExtraError: matplotlib or jinja2 is not installed.
    """
    place = found.at
    name = f"{place.model}, " if place.model else ""
    return write_page(
        path,
        "prediction.html",
        title=f"The loss of {name}{_size(place.parameters_million)} parameters",
        folder=path.parent,
        lede=_lede(found),
        found=found,
        fit=_fit_chart(found),
        residuals=_residual_chart(found),
    )


def _size(millions: float) -> str:
    return count(millions * 1e6)


def _sizes(found: PredictionRecord) -> list[float]:
    """The sizes that the law is of."""
    return sorted({point.parameters_million for point in found.points if not point.left_out})


def _lede(found: PredictionRecord) -> list[str]:
    sizes = _sizes(found)
    low, high = found.interval
    after = f" after {count(found.at.tokens)} tokens" if found.at.tokens is not None else ""
    return [
        f"A new run of {_size(found.at.parameters_million)} parameters is predicted to end at "
        f"{decimal(found.prediction, 4)} nats a token{after}, and with {percent(found.level)} to "
        f"lie between {decimal(low, 4)} and {decimal(high, 4)}.",
        f"The law is of {len(sizes)} sizes from {_size(sizes[0])} to {_size(sizes[-1])}.",
    ]


def _fit_chart(found: PredictionRecord) -> Chart:
    size, loss, low, high = np.array(found.curve).T
    alt = (
        f"The law's curve of the loss falls from {decimal(loss[0])} at {_size(size[0])} parameters "
        f"to {decimal(loss[-1])} at {_size(size[-1])}, with a band where a new run would be. "
        f"{len(found.points)} runs lie along it. The prediction is {decimal(found.prediction)}, "
        f"within {decimal(found.interval[0])} and {decimal(found.interval[1])}."
    )

    def draw(axes: Any) -> None:
        axes.fill_between(size, low, high, color=SHADE, linewidth=0)
        axes.plot(size, loss, color=STAGE_COLOURS[0])
        for left_out, face in ((False, STAGE_COLOURS[0]), (True, "none")):
            points = [point for point in found.points if point.left_out is left_out]
            axes.plot(
                [point.parameters_million for point in points],
                [point.loss for point in points],
                linestyle="none", marker="o", markersize=5.5, markerfacecolor=face,
                markeredgecolor=STAGE_COLOURS[0],
            )  # fmt: skip
        at, value = found.at.parameters_million, found.prediction
        below, above = value - found.interval[0], found.interval[1] - value
        axes.errorbar(
            at, value, [[below], [above]], color=STAGE_COLOURS[1], marker="D", markersize=6,
            capsize=5, linewidth=1.8, zorder=5,
        )  # fmt: skip
        axes.annotate(
            f"{value:.3f}", (at, found.interval[1]), (0, 7), textcoords="offset points",
            ha="center", va="bottom", color=INK,
        )  # fmt: skip
        _log_sizes(axes)
        axes.set_yscale("log", subs=[])
        _plain_losses(axes)
        axes.set_ylabel("loss, nats per token")

    return chart("fit", (10.4, 4.6), alt, draw)


def _residual_chart(found: PredictionRecord) -> Chart:
    worst = max(found.points, key=lambda point: abs(point.residual))
    alt = (
        f"By how much each run is above the law. The most is {worst.residual:+.4f}, at "
        f"{_size(worst.parameters_million)}; the standard deviation is {decimal(found.noise, 4)}."
    )

    def draw(axes: Any) -> None:
        axes.axhspan(-found.noise, found.noise, color=SHADE, linewidth=0)
        axes.axhline(0.0, color=MUTED, linewidth=1.0)
        for point in found.points:
            axes.plot(
                [point.parameters_million] * 2, [0.0, point.residual], color=STAGE_COLOURS[0],
                linewidth=1.2,
            )  # fmt: skip
            axes.plot(
                point.parameters_million, point.residual, marker="o", markersize=5.5,
                markerfacecolor="none" if point.left_out else STAGE_COLOURS[0],
                markeredgecolor=STAGE_COLOURS[0],
            )  # fmt: skip
        _log_sizes(axes)
        axes.set_ylabel("loss − law")

    return chart("residuals", (10.4, 2.9), alt, draw)


def _log_sizes(axes: Any) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _size(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("parameters")


def _plain_losses(axes: Any) -> None:
    """Round numbers along a logarithmic axis that spans less than a power of ten."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

    axes.yaxis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 5, 10]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
