"""What runs left behind, as the report reads it: lines of JSON, one file a kind."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from teleflm.errors import DataError
from teleflm.files import read_jsonl

Row = dict[str, Any]
Array = NDArray[np.float64]

_POINTS = 500
_Object = TypeVar("_Object", bound=BaseModel)


def read_object(path: Path, kind: type[_Object], writer: str, again: str) -> _Object:
    """A file that holds one object.

    Args:
        path: a JSON file.
        kind: what it is to be.
        writer, again: what the user is told of who writes it, and to do where it is damaged.

    Raises:
        DataError: there is none, or it is damaged; the message names the key.
    """
    try:
        return kind.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; {writer}") from None
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(str(part) for part in problem["loc"])
        reason = f"{place}: {problem['msg']}"
    except ValueError as error:
        reason = str(error)
    raise DataError(f"{path}: damaged ({reason}); {again}, it writes the file anew")


@dataclass(frozen=True)
class Trace:
    """The records of one run; each list is empty where nothing was written yet."""

    name: str
    metrics: list[Row] = field(default_factory=list)
    evaluations: list[Row] = field(default_factory=list)
    samples: list[Row] = field(default_factory=list)

    def column(self, key: str) -> Array:
        """One key of the metrics, a figure a step; NaN where a line has none."""
        return column(self.metrics, key)


def column(rows: Sequence[Row], key: str) -> Array:
    """One key of `rows`, NaN where it is missing or null."""
    values = (row.get(key) for row in rows)
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def read_trace(run_dir: Path, name: str) -> Trace:
    """The records of a run folder; a line that a killed process tore is left out."""
    return Trace(
        name,
        metrics=read_jsonl(run_dir / "metrics.jsonl"),
        evaluations=read_jsonl(run_dir / "evaluation.jsonl"),
        samples=read_jsonl(run_dir / "samples.jsonl"),
    )


class Timeline:
    """Steps, tokens and FLOPs of a lineage against each other, from its runs' metrics.

    All three are cumulative and zero at the start of the lineage, so that a moment between two
    recorded steps, a growth above all, is found by linear interpolation.
    """

    def __init__(self, traces: Sequence[Trace]) -> None:
        rows = [row for trace in traces for row in trace.metrics]
        self._axes = {
            key: np.concatenate([[0.0], column(rows, key)]) for key in ("step", "tokens", "flops")
        }

    def at(self, steps: Array | float, key: str) -> Array:
        """Tokens, FLOPs or steps at the end of those steps."""
        return np.interp(steps, self._axes["step"], self._axes[key])

    @property
    def last_step(self) -> float:
        """The newest step."""
        return float(self._axes["step"][-1])


def steps_a_point(traces: Sequence[Trace]) -> int:
    """How many steps one point of a picture stands for, so that a long lineage fits into it."""
    return max(1, sum(len(trace.metrics) for trace in traces) // _POINTS)


def thinned(values: Array, size: int) -> Array:
    """Means of `size` neighbouring values, of those that are finite; the last may be of fewer."""
    edges = np.arange(0, len(values), size)
    finite = np.isfinite(values)
    sums = np.add.reduceat(np.where(finite, values, 0.0), edges)
    counts = np.add.reduceat(finite.astype(np.float64), edges)
    return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)
