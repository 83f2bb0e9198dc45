"""The tables of a series page, worked out from its summary."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, zip_longest
from typing import Any

from teleflm.config.resolve import PUBLISHED_PARAMETERS, resolve_model
from teleflm.report.summary import CertificateFigures, Growth, Stage, Summary
from teleflm.report.words import DASH, count, decimal, error, factor, whole

PUBLISHED = {
    "tele-flm-52b": "Tele-FLM-52B",
    "tele-flm-102b": "Tele-FLM-102B",
    "tele-flm-1t": "Tele-FLM-1T",
}
SIZES = {
    "layers": "num_hidden_layers",
    "hidden": "hidden_size",
    "heads": "num_attention_heads",
    "FFN": "intermediate_size",
}
"""The sizes that tell a model's shape, in the words of the page's tables."""


@dataclass(frozen=True)
class FamilyRow:
    """A model, or the growth to the next one: here and as published, cell beside cell."""

    is_growth: bool
    names: tuple[str, str]
    cells: list[tuple[str, str]]


def family(stages: Sequence[Stage]) -> tuple[list[str], list[FamilyRow]]:
    """Column heads and rows: the series' models beside the published ones, and the growths."""
    ours = [(stage.name, _figures(stage.model, stage.parameters)) for stage in stages]
    published = [
        (title, _figures(resolve_model(preset).model_dump(), PUBLISHED_PARAMETERS[preset]))
        for preset, title in PUBLISHED.items()
    ]
    none: tuple[str, list[float | None]] = (DASH, [None] * len(published[0][1]))
    pairs = list(zip_longest(ours, published, fillvalue=none))
    formats: list[Callable[[float | None], str]] = [
        *[whole for _ in SIZES], lambda value: decimal(value, 2), _parameters
    ]  # fmt: skip
    rows = [_model_row(pairs[0], formats)]
    for before, after in pairwise(pairs):
        rows += [_growth_row(before, after), _model_row(after, formats)]
    return [*SIZES, "FFN ÷ hidden", "parameters"], rows


_Side = tuple[str, list[float | None]]


def _figures(model: Mapping[str, Any], parameters: float | None) -> list[float | None]:
    sizes = [model.get(key) for key in SIZES.values()]
    ffn, hidden = model.get(SIZES["FFN"]), model.get(SIZES["hidden"])
    return [*sizes, ffn / hidden if ffn and hidden else None, parameters]


def _parameters(value: float | None) -> str:
    # The published figures have more digits than three, and are quoted whole.
    return (
        f"{value / 1e9:,.2f}\N{NO-BREAK SPACE}B"
        if value is not None and value >= 1e9
        else count(value)
    )


def _model_row(
    pair: tuple[_Side, _Side], formats: Sequence[Callable[[float | None], str]]
) -> FamilyRow:
    (name, mine), (title, theirs) = pair
    cells = [(form(a), form(b)) for form, a, b in zip(formats, mine, theirs, strict=True)]
    return FamilyRow(False, (name, title), cells)


def _growth_row(before: tuple[_Side, _Side], after: tuple[_Side, _Side]) -> FamilyRow:
    mine, theirs = (
        [factor(b / a if a and b else None) for a, b in zip(old[1], new[1], strict=True)]
        for old, new in zip(before, after, strict=True)
    )
    return FamilyRow(True, ("growth", "published"), list(zip(mine, theirs, strict=True)))


@dataclass(frozen=True)
class Measured:
    """One figure of a certificate; `holds` is None where nothing was measured."""

    text: str
    holds: bool | None
    headroom: str


@dataclass(frozen=True)
class Check:
    """One kind of figure: what it means in plain words, its bound, a figure a growth.

    The bound is the one that the certificates were judged by, None where there is none.
    """

    title: str
    meaning: str
    bound: float | None
    figures: list[Measured]

    @property
    def holds(self) -> bool:
        """Whether it was measured at every growth and is within its bound."""
        return all(figure.holds for figure in self.figures)


def checks(growths: Sequence[Growth]) -> list[Check]:
    """The certificates of the growths."""
    proofs = [growth.certificate or CertificateFigures() for growth in growths]
    steps = next((proof.trajectory.steps for proof in proofs if proof.trajectory), None)
    return [
        _check(
            "The same function",
            "The grown model and its parent read the same tokens, in 64-bit arithmetic. This is "
            "the largest change of any output score, as a share of the largest score: what is left "
            "is rounding.",
            [proof.bounds.function for proof in proofs],
            [proof.function.max_relative_logit_error for proof in proofs],
        ),
        _check(
            "… in 32-bit arithmetic",
            "The same comparison in the precision that the weights are kept in, where rounding is "
            "half a billion times coarser.",
            [proof.bounds.float32_function for proof in proofs],
            [proof.function.float32_max_relative_logit_error for proof in proofs],
        ),
        _check(
            "The same training",
            f"Both go on training for {steps or 'some'} steps on the same batches while the masks "
            "stay shut. This is the largest difference of their losses: it shows that the "
            "optimizer's memory and learning rates were grown rightly too, which no look at the "
            "outputs alone can show.",
            [proof.bounds.trajectory for proof in proofs],
            [
                proof.trajectory.max_relative_loss_difference if proof.trajectory else None
                for proof in proofs
            ],
        ),
    ]


def _check(
    title: str, meaning: str, bounds: list[float | None], values: list[float | None]
) -> Check:
    figures = [_measured(value, bound) for value, bound in zip(values, bounds, strict=True)]
    return Check(title, meaning, next(filter(None, bounds), None), figures)


def _measured(value: float | None, bound: float | None) -> Measured:
    if value is None or bound is None:
        return Measured(DASH, None, "not measured")
    if not value <= bound:
        return Measured(error(value), False, "beyond the bound")
    return Measured(
        error(value), True, f"{whole(bound / value)} times below" if value else "not a bit changed"
    )


@dataclass(frozen=True)
class Strip:
    """A growth's layers as a picture 960 units wide: the parent's row above the child's.

    `old` has for each layer of the parent its left edge above and below and its index below, `new`
    the left edge and index of each added layer.
    """

    cell: float
    old: list[tuple[float, float, int]]
    new: list[tuple[float, int]]
    alt: str


_STRIP_WIDTH = 960


def strip(growth: Growth, summary: Summary) -> Strip | None:
    """The picture of where a growth put its layers; None where the summary does not tell."""
    child = next((stage for stage in summary.stages if stage.name == growth.to), None)
    total = child.model.get(SIZES["layers"]) if child else None
    if not growth.layers or not total:
        return None
    cell = _STRIP_WIDTH / total
    shift = (_STRIP_WIDTH - cell * len(growth.layers)) / 2
    new = [layer for layer in range(total) if layer not in growth.layers]
    return Strip(
        cell,
        [(shift + i * cell, layer * cell, layer) for i, layer in enumerate(growth.layers)],
        [(layer * cell, layer) for layer in new],
        f"{len(growth.layers)} layers above, {total} below. New layers are at "
        f"{', '.join(map(str, new)) or 'no place'}, counted from 0.",
    )


def shape_of(model: Mapping[str, Any]) -> str:
    """A model in a few words: 16 layers × 128."""
    return f"{whole(model.get(SIZES['layers']))} layers × {whole(model.get(SIZES['hidden']))}"
