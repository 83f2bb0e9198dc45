"""`teleflm predict` as a user has it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Command
from tests.prediction.folders import TOKENS, write_run, write_runs

SIZES = [8.53, 21.56, 39.09, 61.12, 87.65, 118.68, 154.21, 194.24]
KEYS = {"law", "prediction", "interval", "relative_error_left_out"}


@pytest.fixture
def points(tmp_path: Path) -> Path:
    losses = [2.469 * size**-0.4231 + 2.9233 + 0.007 * (-1) ** round(size) for size in SIZES]
    path = tmp_path / "points.json"
    path.write_text(json.dumps({"source": "made", "parameters_million": SIZES, "loss": losses}))
    return path


def predicted(teleflm: Command, *arguments: object) -> dict[str, Any]:
    done = teleflm("predict", *arguments, "--json")
    assert done.code == 0, done.err
    found: dict[str, Any] = json.loads(done.out)
    return found


def test_points(teleflm: Command, points: Path) -> None:
    found = predicted(teleflm, "--points", points, "--at", 500)
    assert found.keys() >= KEYS
    law, (low, high) = found["law"], found["interval"]
    assert found["prediction"] == pytest.approx(law["a"] * 500 ** law["b"] + law["c"])
    assert low < found["prediction"] < high
    assert 0 < found["relative_error_left_out"] < 0.02
    left = predicted(teleflm, "--points", points, "--at", 500, "--leave", 2)["left_out"]
    assert [each["parameters_million"] for each in left] == SIZES[-2:]


def test_runs_and_a_page(teleflm: Command, tmp_path: Path) -> None:
    runs, page = write_runs(tmp_path / "a_folder_with_a_long_name_indeed"), tmp_path / "page.html"
    model = tmp_path / "model.yaml"
    model.write_text(
        "{hidden_size: 128, intermediate_size: 256, num_hidden_layers: 2, num_attention_heads: 16,"
        "output_mult: 0.7, vector_init_std: 0.05}"
    )
    at = ("--at", model, "--tokens", 2 * TOKENS)
    found = predicted(teleflm, *runs, *at, "--out", page)
    assert found["at"]["model"] == str(model) and found["at"]["tokens"] == 2 * TOKENS
    assert page.read_text(encoding="utf-8").count("<svg") > 2
    # Written again, as it is a page of this verb's.
    done = teleflm("predict", *runs, *at, "--out", page)
    assert done.code == 0 and f"the page: {page}" in done.out
    named = [line for line in done.out.splitlines() if str(tmp_path) not in line]
    assert max(map(len, named)) <= 80
    assert f"{found['prediction']:.4f} nats a token" in done.out


BAD: dict[str, tuple[tuple[object, ...], str]] = {
    "nothing": (("--at", 3), "from what?"),
    "both": (("run", "--points", "points.json", "--at", 3), "one of the two"),
    "no target": (("--points", "points.json"), "--at"),
    "tokens": (("--points", "points.json", "--at", 3, "--tokens", 5), "has no curves"),
    "a model": (("--points", "points.json", "--at", "nano-52b"), "give a number, of millions"),
    "no file": (("--points", "none.json", "--at", 3), r"none\.json: not readable"),
    "no run": (("none", "--at", "nano-52b"), "none: no such checkpoint or run folder"),
    "few": (("--points", "points.json", "--at", 9, "--leave", 5), "3 sizes .* say too little"),
    "far": (("--points", "points.json", "--at", 9999), "51 times the largest size"),
    "negative": (("--points", "points.json", "--at", 9, "--leave", -1), "leave"),
    "a folder": (("--points", "points.json", "--at", 9, "--out", "."), "is a folder"),
    "foreign": (
        ("--points", "points.json", "--at", 9, "--out", "points.json"),
        r"points\.json is there, no page of predict's",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(
    teleflm: Command, points: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(points.parent)
    arguments, message = BAD[name]
    done = teleflm("predict", *arguments)
    assert (done.code, done.out) == (2, "")
    assert re.search(message, done.err), done.err


def test_a_diverged_run_is_named(teleflm: Command, tmp_path: Path) -> None:
    runs = write_runs(tmp_path)
    runs.append(write_run(tmp_path / "bad", 80, metric=lambda step, loss: loss + (step > 200)))
    done = teleflm("predict", *runs, "--at", "nano-52b")
    assert done.code == 2 and "bad: diverged" in done.err
