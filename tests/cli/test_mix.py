"""`data mix`: a store, a run and a recipe, for a budget."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from teleflm.data.store import TokenStore
from tests.conftest import Command


def domains(teleflm: Command, *arguments: object) -> dict[str, Any]:
    outcome = teleflm("data", "mix", *arguments, "--json")
    assert outcome.code == 0, outcome.err
    found: dict[str, Any] = json.loads(outcome.out)["domains"]
    return found


def test_a_store_by_its_tokens_and_by_weights(teleflm: Command, store: TokenStore) -> None:
    tokens = {name: counts.tokens for name, counts in store.domains.items()}
    total = sum(tokens.values())
    found = domains(teleflm, store.path, "--tokens", 2 * total)
    assert {name: each["tokens"] for name, each in found.items()} == tokens
    assert [each["epochs"] for each in found.values()] == pytest.approx([2] * 3)
    weights = ["--weight", "english=3", "--weight", "chinese=1", "--weight", "code=0"]
    found = domains(teleflm, store.path, "--tokens", "1e6", *weights)
    assert [found[name]["share"] for name in ("english", "chinese", "code")] == [0.75, 0.25, 0]
    assert found["english"]["epochs"] == pytest.approx(750_000 / tokens["english"])
    outcome = teleflm("data", "mix", store.path, "--tokens", 5 * total)
    assert outcome.code == 0 and max(map(len, outcome.out.splitlines())) <= 80
    assert outcome.err.count("is read 5.0 times; up to 4 epochs") == 3
    outcome = teleflm("data", "mix", store.path, "--tokens", 4 * total)
    assert outcome.code == 0 and not outcome.err


def test_a_run_by_its_data(teleflm: Command, store: TokenStore, tmp_path: Path) -> None:
    run = tmp_path / "run.yaml"
    source = {"path": str(store.path), "epochs": 2.5}
    half = {"path": str(store.path), "epochs": 0.5}
    run.write_text(json.dumps({"data": {"path": {"english": source, "chinese": half}}}))
    tokens = {name: counts.tokens for name, counts in store.domains.items()}
    budget = 2.5 * tokens["english"] + 0.5 * tokens["chinese"]
    found = domains(teleflm, run, "--tokens", budget)
    assert found["english"]["epochs"] == pytest.approx(2.5, rel=1e-3)
    assert found["chinese"]["epochs"] == pytest.approx(0.5, rel=1e-3)


def recipe(folder: Path, kept: dict[str, Any] | None) -> Path:
    sources = [
        {"name": "web", "path": "w", "language": "en"},
        {"name": "books", "path": "b", "language": "en", "epochs": 2.5},
    ]
    path = folder / "recipe.yaml"
    path.write_text(json.dumps({"out": str(folder / "out"), "sources": sources}))
    if kept is not None:
        (folder / "out").mkdir()
        (folder / "out" / "clean.json").write_text(json.dumps({"sources": kept}))
    return path


def test_a_recipe_by_its_epochs(teleflm: Command, tmp_path: Path) -> None:
    pytest.importorskip("datatrove")
    kept = {
        "web": {"kept_tokens": 1000, "kept_bytes": 4000},
        "books": {"kept_tokens": 400, "kept_bytes": 1600},
    }
    found = domains(teleflm, recipe(tmp_path, kept), "--tokens", 2000)
    assert [each["epochs"] for each in found.values()] == pytest.approx([1, 2.5])
    assert [each["share"] for each in found.values()] == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        (None, r"clean.json: not there yet; run first: teleflm data clean"),
        ({"web": {"kept_tokens": 1, "kept_bytes": 4}}, "nothing of the source 'books'"),
        (
            {name: {"kept_tokens": None, "kept_bytes": 4} for name in ("web", "books")},
            "the tokens of 'web' were not counted; set `tokenizer`",
        ),
        ({"web": 3}, "damaged"),
    ],
)
def test_a_recipe_that_is_not_cleaned(
    teleflm: Command, tmp_path: Path, kept: dict[str, Any] | None, message: str
) -> None:
    pytest.importorskip("datatrove")
    outcome = teleflm("data", "mix", recipe(tmp_path, kept), "--tokens", 10)
    assert outcome.code == 2 and message in outcome.err


def test_bad_input(teleflm: Command, store: TokenStore, tmp_path: Path) -> None:
    for arguments, message in (
        ((store.path, "--tokens", 0), "--tokens 0: not a number of tokens"),
        ((store.path, "--tokens", "inf"), "--tokens inf: not a number of tokens"),
        ((store.path, "--tokens", 9, "--weight", "latin=1"), "no domain 'latin' to have a weight"),
        ((store.path, "--tokens", 9, "--weight", "code=1"), "'chinese' has no weight"),
        ((tmp_path, "--tokens", 9), "not a token store"),
        ((tmp_path / "none", "--tokens", 9), "none: no such file"),
    ):
        outcome = teleflm("data", "mix", *arguments)
        assert outcome.code == 2 and message in outcome.err, outcome.err


def test_copies_of_a_store_are_told(teleflm: Command, store: TokenStore, tmp_path: Path) -> None:
    weighted = Path(shutil.copytree(store.path, tmp_path / "weighted"))
    file = weighted / "store.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"weights": {"repeated": 1234}}))
    done = teleflm("data", "mix", weighted, "--tokens", 1000)
    assert (done.code, "1,234 of the documents are copies" in done.err) == (0, True)
    assert "copies" not in teleflm("data", "mix", store.path, "--tokens", 1000).err
