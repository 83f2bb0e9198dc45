"""The recipes that come along, and that of the example, are recipes, and their steps get along."""

import json
from pathlib import Path

import pytest
import zstandard
from typer.testing import CliRunner

from teleflm.cleaning.recipe import load_recipe, shipped_recipes, work_of
from teleflm.cleaning.steps import KINDS
from teleflm.cli.main import app
from tests.cleaning.planted import changed, words
from tests.conftest import Command

EXAMPLE = Path(__file__).parents[2] / "examples/raw_text/recipe.yaml"
GIVEN = ["out=clean", "sources=[{name: a, path: a, language: en}]"]
ALL = [
    "settings.quality.model=score.safetensors",
    "settings.decontaminate=true",
    "test_sets=[tests]",
    "settings.mask=true",
]


def test_there_are_those_of_the_issue() -> None:
    assert set(shipped_recipes()) == {"web-en", "web-zh", "books", "code", "tele-flm"}
    shown = " ".join(CliRunner().invoke(app, ["data", "clean", "--help"]).output.split())
    assert ", ".join(shipped_recipes()) in shown


@pytest.mark.parametrize("name", [*shipped_recipes(), str(EXAMPLE)])
def test_each_can_be_built_as_it_is_and_with_all_its_steps(name: str) -> None:
    given = [] if name in ("tele-flm", str(EXAMPLE)) else GIVEN
    recipe = load_recipe(name, given)
    few = [work.name for work in work_of(recipe, KINDS, name)]
    held = [step for step in ALL if "mask" not in step or name != "books"]
    every = [work.name for work in work_of(load_recipe(name, [*given, *held]), KINDS, name)]
    assert set(few) < set(every)
    order = [step for step in KINDS if step in every]
    assert every == order


def test_the_published_domains_have_their_epochs() -> None:
    sources = load_recipe("tele-flm").sources
    domains = {source.domain or source.name: source.epochs for source in sources}
    assert len(domains) == 11
    assert {name: epochs for name, epochs in domains.items() if epochs != 1} == {
        "Book": 0.8,
        "WorldKnowledge": 2.5,
        "Math": 2.0,
        "ClassicalChinese": 2.5,
    }


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_copy_with_few_words_changed_goes_whole(
    tmp_path: Path, teleflm: Command, language: str
) -> None:
    # A step that took its unchanged paragraphs would leave the changed ones, which nothing knows.
    gap, stop = (" ", ".") if language == "en" else ("", "。")
    body = words(1, 400, language)
    copy = changed(body, 0.01, 2)
    texts = [
        "\n\n".join(gap.join(units[at : at + 40]) + stop for at in range(0, 400, 40))
        for units in (body, copy)
    ]
    records = [json.dumps({"text": text, "id": str(n)}) + "\n" for n, text in enumerate(texts)]
    (tmp_path / "a.jsonl").write_text("".join(records))
    source = f"sources=[{{name: a, path: {tmp_path}/a.jsonl, language: {language}}}]"
    # Made-up words are in no language.
    fitting = ["executor.workers=1", "settings.language=false", "settings.heuristics=false"]
    outcome = teleflm("data", "clean", f"web-{language}", f"out={tmp_path}/out", source, *fitting)
    assert outcome.code == 0, outcome.err
    (path,) = (tmp_path / "out/text").rglob("*.zst")
    with zstandard.open(path, "rt", encoding="utf-8") as file:
        assert [json.loads(line)["text"] for line in file] == [texts[0]]
