"""What `teleflm eval` found of models, as a table and a page."""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from teleflm.errors import DataError
from teleflm.report.figures import MUTED, colour_of
from teleflm.report.page import Chart, chart, write_page
from teleflm.report.summary import Summary
from teleflm.report.words import decimal

Json = Mapping[str, Any]
RECORD = "evaluation.json"
"""Of a stage of a series, beside its run's other records."""


class Figure(NamedTuple):
    """A figure with its standard error, None where there is none.

    `difference` is that to the first model's, with its own standard error.
    """

    value: float | None
    error: float | None = None
    difference: tuple[float, float | None] | None = None

    def __str__(self) -> str:
        told = _with_error(self.value, self.error)
        if self.difference is None:
            return told
        value, error = self.difference
        return f"{told} ({'+' if value > 0 else ''}{_with_error(value, error)})"


def _with_error(value: float | None, error: float | None) -> str:
    return decimal(value) + ("" if error is None else f" ± {decimal(error)}")


class Row(NamedTuple):
    """One kind of figure, of each model."""

    group: str
    title: str
    figures: list[Figure]


def rows(models: Mapping[str, Json]) -> list[Row]:
    """Bits per byte of each domain and their mean, the loss of conversations, then each metric of
    each task, of models by their names; what is not known of one is a dash."""
    facts = list(models.values())
    found = []
    for domain in _union([each["bpb"] for each in facts]):
        figures = [
            Figure(
                each["bpb"].get(domain),
                each["bpb_stderr"].get(domain),
                each.get("bpb_difference", {}).get(domain),
            )
            for each in facts
        ]
        found.append(Row("bits per byte", domain, figures))
    if found:
        means = [Figure(each["bpb_mean"]) for each in facts]
        found.append(Row("bits per byte", "mean of domains", means))
    if any(each.get("conversations") for each in facts):
        # What has no bytes is told by it alone.
        losses = [Figure(each["loss"]) for each in facts]
        found.append(Row("nats per token", "of replies", losses))
    tasks = [each.get("tasks", {}) for each in facts]
    for name in _union(tasks):
        mine = [each.get(name, {}) for each in tasks]
        for metric in _union(mine):
            kind, _, kept = metric.partition(",")
            if kind.endswith("_stderr"):
                continue
            errors = [each.get(f"{kind}_stderr,{kept}") for each in mine]
            figures = [Figure(each.get(metric), e) for each, e in zip(mine, errors, strict=True)]
            found.append(Row(name, kind if kept == "none" else f"{kind}, {kept}", figures))
    return found


def _union(mappings: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for mapping in mappings for key in mapping))


def write_evaluation_page(path: Path, models: Mapping[str, Json]) -> Path:
    """Write the page that compares models.

    Raises:
        MissingExtraError: matplotlib or jinja2 is not installed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_page(
        path,
        "evaluation.html",
        title="Evaluation",
        folder=", ".join(models),
        lede=_lede(models),
        models=models,
        rows=rows(models),
        positions=_position_chart(models),
    )


def _lede(models: Mapping[str, Json]) -> list[str]:
    best = {name: each["bpb_mean"] for name, each in models.items() if each["bpb_mean"] is not None}
    if len(best) < 2:
        return []
    name = min(best, key=lambda key: best[key])
    what = "replies" if models[name].get("conversations") else "text"
    return [f"{name} needs the fewest bits for a byte of {what}, {decimal(best[name])} on average."]


def _position_chart(models: Mapping[str, Json]) -> Chart | None:
    """Loss by position; None where windows are too short to tell."""
    if max(len(each["positions"]) for each in models.values()) < 2:
        return None
    return chart(
        "positions",
        (10.4, 3.6),
        "Line chart of the loss of a token over how many tokens stand before it, a line a model.",
        partial(_draw_positions, models=models),
        "Loss by position",
    )


def _draw_positions(axes: Any, models: Mapping[str, Json]) -> None:
    for index, (name, each) in enumerate(models.items()):
        bands = each["positions"]
        places = [(band["first"] + band["last"] + 1) / 2 for band in bands]
        losses = [band["loss"] for band in bands]
        label = name.replace("$", r"\$")
        axes.plot(places, losses, marker="o", markersize=4, color=colour_of(index), label=label)
    axes.set_xscale("log", base=2)
    axes.set_xlabel("tokens of the window before it")
    axes.set_ylabel("nats per token", color=MUTED)
    axes.legend(frameon=False)


def stage_evaluations(series_dir: Path, summary: Summary) -> dict[str, Json]:
    """What was found of the stages of a series, by name; those alone that have not moved since.

    Raises:
        DataError: a damaged record.
    """
    found = {}
    for stage in summary.stages:
        path = series_dir / stage.run_dir / RECORD
        if not path.is_file():
            continue
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
            rows({stage.name: facts})
            step = facts["step"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path}: damaged ({error!r}); evaluate the series again") from error
        if step == stage.last_step:
            found[stage.name] = facts
    return found
