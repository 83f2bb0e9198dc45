"""The page that compares models."""

from pathlib import Path
from typing import Any

from teleflm.report.evaluation import Figure, rows, write_evaluation_page
from tests.report.page import read_page


def facts(bpb: dict[str, float], bands: int, **more: Any) -> dict[str, Any]:
    positions = [
        {"first": 128 * 2**i // 2 if i else 0, "last": 128 * 2**i - 1, "tokens": 9, "loss": 3.0 - i}
        for i in range(bands)
    ]
    return {
        "step": 5,
        "tokens_trained": 1000,
        "data": "store",
        "windows": "disjoint",
        "sequence_length": 256,
        "dtype": "fp32",
        "bpb": bpb,
        "bpb_stderr": dict.fromkeys(bpb, 0.0125),
        "bpb_mean": sum(bpb.values()) / len(bpb) if bpb else None,
        "tokens": 900,
        "bytes": 2700,
        "positions": positions,
        **more,
    }


TASK = {"acc,none": 0.25, "acc_stderr,none": 0.125, "exact_match,strict": 0.5}
MODELS = {
    "runs/small": facts({"english": 1.5, "那": 2.5}, 2, tasks={"toy": TASK}),
    "runs/<b>$big$": facts({"english": 1.25}, 2, bpb_difference={"english": (-0.25, 0.001)}),
}


def test_each_figure_stands_with_its_own_error_and_what_is_not_known_is_a_dash() -> None:
    assert [(row.group, row.title, list(map(str, row.figures))) for row in rows(MODELS)] == [
        ("bits per byte", "english", ["1.500 ± 0.013", "1.250 ± 0.013 (-0.250 ± 0.001)"]),
        ("bits per byte", "那", ["2.500 ± 0.013", "–"]),
        ("bits per byte", "mean of domains", ["2.000", "1.250"]),
        ("toy", "acc", ["0.250 ± 0.125", "–"]),
        ("toy", "exact_match, strict", ["0.500", "–"]),
    ]
    assert rows({"x": facts({}, 0)}) == [] and str(Figure(None)) == "–"
    assert str(Figure(1.0, None, (0.5, None))) == "1.000 (+0.500)"


def test_the_page_stands_alone(tmp_path: Path) -> None:
    page = read_page(write_evaluation_page(tmp_path / "new" / "page.html", MODELS))
    assert all(address.startswith("#") for address in page.addresses)
    assert "1.500 ± 0.013" in page.text and "runs/<b>$big$" in page.text and "那" in page.text
    assert "a line a model" in (page.images[0] or "")
    short = {"a": facts({"x": 1.0}, 1)}
    assert read_page(write_evaluation_page(tmp_path / "page.html", short)).images == []
