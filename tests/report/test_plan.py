"""The page of a plan, from its record alone."""

import json
from pathlib import Path
from typing import Any

import pytest

from teleflm.errors import DataError
from teleflm.report.plan import read_plan, write_plan_report
from tests.report.page import Page, read_page

GB = 10**9
MEMORY = {"parameters": 5 * GB, "gradients": 5 * GB, "optimizer": 10 * GB, "activations": 20 * GB}
FIGURES = {
    "layout": {"tp": 2, "pp": 2, "dp": 1},
    "fits": True,
    "micro_batch": 1,
    "activation_checkpointing": "full",
    "memory_bytes_per_rank": {**MEMORY, "total": 40 * GB},
    "step_seconds": 5.0,
    "mfu": 0.4,
}
PLAN: dict[str, Any] = {
    **FIGURES,
    "run": "examples/mine.yaml",
    "cluster": "a800-112x8",
    "device_memory_bytes": 80 * GB,
    "schedule": "1f1b",
    "micro_batches": 9,
    "parameters": 10**9,
    "ranks": 4,
    "breaks": None,
    "step_parts": {"computation": 4.0, "bubble of the pipeline": 1.0},
    "bubble_fraction": 0.1,
    "days": 13.62,
    "gpu_hours": 1234.5,
    "cost": None,
    "pipeline_ranks": [{"stage_layers": [rank], "memory_bytes": MEMORY} for rank in range(2)],
    "timeline": {
        "micro_batches": 1,
        "idle_fraction": [0.5, 0.25],
        "ranks": [
            [["forward", 0, 0, 0.0, 1.0], ["backward", 0, 0, 3.0, 4.0]],
            [["forward", 1, 0, 1.0, 2.0], ["backward", 1, 0, 2.0, 3.0]],
        ],
    },
}
BEST = {**FIGURES, "place": 1, "asked": False, "reason": "the fastest that fits"}
REFUSED = {
    "place": 4,
    "asked": True,
    "reason": "8 layers < 9 stages",
    "layout": {"tp": 1, "pp": 9, "dp": 1},
    "fits": False,
}


def place(number: int, **changed: Any) -> dict[str, Any]:
    layout = {"tp": 1, "pp": number, "dp": 1}
    return {**BEST, "place": number, "layout": layout, "reason": f"reason {number}", **changed}


def page_of(folder: Path, **changed: Any) -> Page:
    (folder / "plan.json").write_text(json.dumps({**PLAN, **changed}), encoding="utf-8")
    return read_page(write_plan_report(folder))


def test_a_plan(tmp_path: Path) -> None:
    page = page_of(tmp_path)
    assert "mine on a800-112x8" in page.text and "40 GB of 80 GB" in page.text
    assert "13.6 days" in page.text and "1,234 GPU-hours" in page.text
    memory, timeline = page.images
    assert memory is not None and timeline is not None
    assert "2 pipeline ranks" in memory and "activations 20 GB" in memory
    assert "from 25.0 % to 50.0 % of the time" in timeline.replace("\N{NO-BREAK SPACE}", " ")
    assert "Shown is a step with 1 micro-batches" in page.text
    assert "The search" not in page.text and page.addresses == []


def test_the_colours_are_the_page_s(tmp_path: Path) -> None:
    page_of(tmp_path, candidates=[BEST])
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    drawn = text[text.index("</style>") :]
    assert "var(--stage-3)" in drawn and "#3566a8" not in drawn


def test_without_a_pipeline_there_is_no_timeline(tmp_path: Path) -> None:
    page = page_of(tmp_path, timeline=None, pipeline_ranks=PLAN["pipeline_ranks"][:1])
    assert "timeline" not in page.text and len(page.images) == 1


def test_the_search(tmp_path: Path) -> None:
    asked = place(3, asked=True, step_seconds=7.0)
    slow = place(2, layout=FIGURES["layout"], reason="the same, slower")
    far = place(40, fits=False, memory_bytes_per_rank={**MEMORY, "total": 90 * GB})
    page = page_of(tmp_path, candidates=[BEST, slow, asked, REFUSED, far])
    assert "5 plans: 3 that fit, by their time; 1 that do not, by their memory; 1 lay" in page.text
    search = page.images[2]
    assert search is not None and "4 plans" in search
    assert "the fastest that fits: tp 2 · pp 2 · dp 1 with 40 GB and 5.000 s" in search
    assert "asked for: tp 1 · pp 3 · dp 1" in search
    # The best of each layout.
    assert "the same, slower" not in page.text and "8 layers < 9 stages" in page.text


def test_the_one_asked_for_is_shown_however_far_it_stands(tmp_path: Path) -> None:
    others = [place(number) for number in range(2, 60)]
    page = page_of(tmp_path, candidates=[BEST, *others, place(60, asked=True)])
    assert "reason 20" in page.text and "reason 21" not in page.text and "reason 60" in page.text


def test_the_best_may_be_the_one_asked_for(tmp_path: Path) -> None:
    search = page_of(tmp_path, candidates=[{**BEST, "asked": True}, REFUSED]).images[2]
    assert search is not None and "that fits, and asked for: tp 2" in search


def test_what_does_not_fit_is_said(tmp_path: Path) -> None:
    last = place(1, fits=False)
    page = page_of(tmp_path, fits=False, breaks="optimizer 90 GB of 80 GB", candidates=[last])
    assert "It does not fit: optimizer 90 GB of 80 GB." in page.text
    search = page.images[2]
    assert search is not None and "the one that needs least" in search


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "no such file; teleflm plan with --out"),
        ("[", "damaged"),
        (json.dumps({**PLAN, "mfu": "high"}), "damaged .mfu: "),
    ],
)
def test_a_record_that_cannot_be_read(tmp_path: Path, text: str | None, words: str) -> None:
    if text is not None:
        (tmp_path / "plan.json").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=words):
        read_plan(tmp_path)
