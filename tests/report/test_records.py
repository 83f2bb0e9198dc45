"""Reading records, and moments of a lineage."""

import json
from pathlib import Path

import numpy as np

from teleflm.report.records import Timeline, Trace, read_trace, steps_a_point, thinned


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    line = json.dumps({"step": 1, "loss": 2.0})
    (tmp_path / "metrics.jsonl").write_text(f'{line}\n{{"step": 2, "lo', encoding="utf-8")
    assert [row["step"] for row in read_trace(tmp_path, "r").metrics] == [1]


def test_a_null_is_a_gap() -> None:
    trace = Trace("r", metrics=[{"mfu": None}, {"mfu": 0.25}, {}])
    np.testing.assert_array_equal(trace.column("mfu"), [np.nan, 0.25, np.nan])


def test_a_moment_without_a_line_lies_between_its_neighbours() -> None:
    rows = [{"step": step, "tokens": 10 * step, "flops": 100.0 * step} for step in (1, 2, 4)]
    timeline = Timeline([Trace("r", metrics=rows)])
    assert [float(timeline.at(step, "flops")) for step in (0, 3, 4)] == [0, 300, 400]


def test_thinning_takes_means_and_invents_nothing() -> None:
    values = np.array([1.0, 3.0, 5.0, 7.0, 11.0])
    np.testing.assert_array_equal(thinned(values, 2), [2, 6, 11])
    np.testing.assert_array_equal(thinned(values, 1), values)
    # A skipped step among others is no gap in the line.
    gaps = np.array([1.0, np.nan, np.nan, np.nan, np.inf])
    np.testing.assert_array_equal(thinned(gaps, 2), [1, np.nan, np.nan])


def test_a_long_lineage_fits_into_a_picture() -> None:
    rows = [{"step": step} for step in range(1, 100_001)]
    traces = [Trace("a", metrics=rows[:60_000]), Trace("b", metrics=rows[60_000:])]
    size = steps_a_point(traces)
    assert sum(len(thinned(trace.column("step"), size)) for trace in traces) <= 502
    assert steps_a_point([Trace("begun", metrics=rows[:1])]) == 1
