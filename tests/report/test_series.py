"""The page of a series."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from teleflm.errors import DataError, MissingExtraError
from teleflm.report.picture import write_picture
from teleflm.report.series import write_series_report
from tests.report.made_up import VOCABULARY, write_series, write_summary
from tests.report.page import read_page


@pytest.fixture(scope="module")
def report(series_dir: Path) -> Path:
    return write_series_report(series_dir)


def _changed(series_dir: Path, tmp_path: Path, **changes: Any) -> Path:
    copy = tmp_path / "copy"
    shutil.copytree(series_dir, copy)
    summary = json.loads((copy / "summary.json").read_text(encoding="utf-8"))
    write_summary(copy, {**summary, **changes})
    return copy


def test_the_page_stands_alone(report: Path) -> None:
    page = read_page(report)
    assert report.stat().st_size < 1_500_000
    assert all(address.startswith("#") for address in page.addresses)
    assert "script" not in page.tags and "url(http" not in report.read_text(encoding="utf-8")
    assert len(page.ids) == len(set(page.ids))


def test_every_picture_says_what_it_shows(report: Path) -> None:
    images = read_page(report).images
    # Two of the loss, three panels, three domains, two strips.
    assert len(images) == 10 and all(images)
    assert "Held-out loss goes from 9.400 to" in str(images[0])


def test_the_page_tells_the_story(report: Path) -> None:
    text = read_page(report).text
    for said in (
        "grown twice, to 7.51 M and 68.6 M,",
        "Neither growth changed what the model computes",
        "1,083.74 B",
        f"The tokenizer has {VOCABULARY:,} entries",
        "same tokens, not the same loss",
        "话说天下大势",
        "370 times below",
        "trust_remote_code=True",
        "teleflm generate",
    ):
        assert said.lower() in text.lower(), said


def test_text_of_a_model_is_never_markup(report: Path) -> None:
    assert "<b>None</b>" not in report.read_text(encoding="utf-8")
    assert "<b>None</b>" in read_page(report).text


def test_a_bad_certificate_is_said_at_the_top(series_dir: Path, tmp_path: Path) -> None:
    summary = json.loads((series_dir / "summary.json").read_text(encoding="utf-8"))
    proof = summary["growths"][1]["certificate"]
    proof["trajectory"]["max_relative_loss_difference"] = 0.1
    proof["exact"] = False
    folder = _changed(series_dir, tmp_path, growths=summary["growths"])
    text = read_page(write_series_report(folder)).text
    assert "Not every growth is certified" in text and "not exact" in text
    assert "beyond the bound" in text and "changed what the model computes" not in text


def test_nulls_and_empty_lists_leave_gaps(series_dir: Path, tmp_path: Path) -> None:
    summary = json.loads((series_dir / "summary.json").read_text(encoding="utf-8"))
    folder = _changed(series_dir, tmp_path, **{key: _emptied(summary[key]) for key in summary})
    read_page(write_series_report(folder))
    for key, value in summary.items():
        if isinstance(value, list):
            write_summary(folder, {**summary, key: []})
            read_page(write_series_report(folder))


def _emptied(value: Any) -> Any:
    if isinstance(value, dict):
        # A growth has a step, or there was none.
        return {k: item if k == "step" else _emptied(item) for k, item in value.items()}
    if isinstance(value, list):
        return [_emptied(item) for item in value if not isinstance(item, int)]
    return None if isinstance(value, int | float) else value


def test_a_series_that_has_only_begun(tmp_path: Path) -> None:
    write_summary(tmp_path, {"title": "Begun"})
    text = read_page(write_series_report(tmp_path)).text
    assert "Begun" in text and "No step has been recorded yet" in text
    write_picture(tmp_path, tmp_path / "picture.png")


def test_the_same_records_give_the_same_page(series_dir: Path, report: Path) -> None:
    before = report.read_bytes()
    assert write_series_report(series_dir).read_bytes() == before


def test_no_summary_and_a_damaged_one_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"summary\.json: no such file"):
        write_series_report(tmp_path)
    (tmp_path / "summary.json").write_text('{"title": "x", "sta', encoding="utf-8")
    with pytest.raises(DataError, match="damaged"):
        write_series_report(tmp_path)
    write_summary(tmp_path, {"stages": [{"name": "x", "model": {}}]})
    with pytest.raises(DataError, match=r"stages\.0\.run_dir"):
        write_series_report(tmp_path)


@pytest.mark.parametrize("library", ["matplotlib", "jinja2"])
def test_a_missing_extra_names_the_way_out(
    library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_series(tmp_path / "s")
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtraError, match=rf"{library}.*teleflm\[report\]"):
        write_series_report(tmp_path / "s")


def test_the_picture_is_wide(series_dir: Path, tmp_path: Path) -> None:
    header = write_picture(series_dir, tmp_path / "p.png").read_bytes()[:24]
    width, height = (int.from_bytes(header[at : at + 4], "big") for at in (16, 20))
    assert width >= 1600 and 2 < width / height < 3
