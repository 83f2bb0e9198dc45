"""The page of a coordinate check."""

from pathlib import Path
from typing import Any

from teleflm.report.coordinates import columns, rows, write_check_page
from tests.report.page import read_page

SIZES = [32.0, 64.0, 128.0]
WRONG = "width/update/<b>stream"


def facts() -> dict[str, Any]:
    """Of made-up quantities, one of them wrong and one without a slope."""
    kinds = ("<b>stream", "logits")
    families = [
        {
            "name": name,
            "sizes": SIZES,
            "levels": {kind: [[1.0, 2.0, 3.0]] * 3 for kind in kinds},
            "updates": {kind: [[1.0, 0.0], [2.0, None], [None, None]] for kind in kinds},
            "shrinkage": {} if name == "depth" else {"matrix": [0.1] * 3, "vector": [0.1] * 3},
        }
        for name in ("width", "depth")
    ]
    slopes: dict[str, float | None] = {
        f"{family}/{moment}/{kind}": 0.004
        for family in ("width", "depth")
        for moment in ("init", "update")
        for kind in kinds
    }
    slopes |= {"width/decay/matrix": -0.001, "width/decay/vector": 0.0}
    slopes |= {WRONG: 0.5, "depth/update/logits": None}
    return {
        "passed": False,
        "slopes": slopes,
        "theory": {name: 0.0 for name in slopes if not name.startswith("depth")},
        "wrong": [WRONG],
        "tolerance": 0.1,
        "families": families,
    }


def test_what_is_wrong_and_what_is_not_judged_is_told_apart() -> None:
    found = rows(facts())
    assert columns(facts()) == ["width/init", "width/update", "depth/init", "depth/update"]
    assert list(found) == ["<b>stream", "logits", "decay, matrix", "decay, vector"]
    assert found["<b>stream"] == [
        ("+0.00", True, False),
        ("+0.50", True, True),
        ("+0.00", False, False),
        ("+0.00", False, False),
    ]
    assert found["logits"][3] == ("none", False, False)
    assert found["decay, matrix"] == [None, ("+0.00", True, False), None, None]


def test_the_page_says_what_failed(tmp_path: Path) -> None:
    written = write_check_page(tmp_path / "new" / "coordinates.html", facts())
    page = read_page(written)
    assert "Failed: 1 of 6 slopes are further than 0.1" in page.text
    assert "+0.50 wrong" in page.text
    assert "<b>stream" in page.text, "as text, not as markup"
    passed = {**facts(), "wrong": []}
    assert "Passed: all 6" in read_page(write_check_page(tmp_path / "other.html", passed)).text
