"""The page of a selection, drawn."""

from pathlib import Path
from typing import Any

import numpy as np

from teleflm.report.selection import Example, Shown, write_selection_page
from tests.report.page import read_page

FACTS: dict[str, Any] = {
    "out": "somewhere/chosen.jsonl",
    "records": 5000,
    "kept": 500,
    "left_out": {"near-duplicate": 700, "noise": 300, "others were better": 3500},
    "noise_above": {"nats_per_byte": 2.5, "nats_per_token": 6.25},
    "clusters": [{"records": 70 - n, "kept": 6, "noise": n % 2} for n in range(64)],
    "domains": {"one": {"records": 4000, "kept": 300}, "two": {"records": 1000, "kept": 200}},
}


def shown() -> Shown:
    draw = np.random.default_rng(0)
    kept, lost = (
        Example(f"a.jsonl, line {n}", "What is <b>1</b> & 2?\n3", verdict, surprise)
        for n, verdict, surprise in ((3, "kept", 0.42), (9, "near-duplicate of line 3", np.nan))
    )
    return Shown(
        places=draw.normal(size=(4300, 2)),
        kept=np.arange(4300) < 500,
        noise=np.arange(4300) >= 4000,
        surprise=np.arange(1.0, 8.0, 7 / 4300),
        clusters=[([kept], [lost])] * 64,
        reasons={"near-duplicate": [lost], "noise": [], "others were better": [kept]},
    )


def test_the_page(tmp_path: Path) -> None:
    path = write_selection_page(tmp_path / "chosen.html", FACTS, shown())
    page = read_page(path)
    for words in (
        "Selection of chosen.jsonl",
        "500 of 5,000 records were kept, 10.0 %, out of 64 clusters.",
        "near-duplicate700",
        "What is <b>1</b> & 2? 3",
        "a.jsonl, line 9near-duplicate of line 3What",
        "line 3kept surprise 0.42What",
        "cluster 1: 6 of 70 kept a.jsonl",
        "cluster 2: 6 of 69 kept, 1 noise",
        "And 4 smaller ones.",
        "beyond 2.50 nats per byte and 6.25 per token",
        "two1,000200",
    ):
        assert words in page.text, words
    assert "cluster 61" not in page.text
    assert page.images == [
        "Records as points in a plane: 3,500 left out, 300 noise, 500 kept.",
        "Bars of the 60 largest clusters: the first has 70 records, of which 6 were kept, the last "
        "shown 11 and 6.",
        "Records by surprise: the median is 4.50, and 4,299 are above 1, noise.",
    ]
    assert not page.addresses
    # A cloud of any size is a page of some megabytes.
    assert path.stat().st_size < 3e6


def test_no_noise_and_one_domain(tmp_path: Path) -> None:
    facts = {**FACTS, "domains": {"one": {"records": 5, "kept": 1}}}
    everything = shown()._replace(noise=np.zeros(4300, bool))
    page = read_page(write_selection_page(tmp_path / "chosen.html", facts, everything))
    assert "0 noise" in (page.images[0] or "") and "Domains" not in page.text
