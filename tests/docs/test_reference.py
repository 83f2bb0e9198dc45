"""docs/reference.md names every key, verb and option; links between the pages lead somewhere."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from teleflm.cleaning.code_rules import CodeRules
from teleflm.cleaning.prose_rules import ChineseRules, EnglishRules, OtherRules
from teleflm.cleaning.recipe import Recipe
from teleflm.cleaning.steps import KINDS
from teleflm.cli.main import app
from teleflm.config.base import Strict
from teleflm.config.cluster import LOCAL, ClusterConfig, cluster_names
from teleflm.config.model import ModelConfig
from teleflm.config.resolve import preset_names
from teleflm.config.run import RunConfig
from teleflm.config.series import SeriesConfig
from teleflm.config.sweep import SweepConfig

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(DOCS.glob("*.md"))
REFERENCE = (DOCS / "reference.md").read_text(encoding="utf-8")


def section(heading: str) -> str:
    """The text below a heading, up to the next one of its level or above."""
    level = len(heading.split()[0])
    begin = REFERENCE.index(f"\n{heading}\n") + len(heading) + 2
    end = re.compile(rf"^#{{1,{level}}} ", re.M).search(REFERENCE, begin)
    return REFERENCE[begin : end.start() if end else None]


def keys(kind: type[Strict], prefix: str = "") -> Iterator[str]:
    """The dotted keys of a configuration model; a MODEL is one key, its fields have a table."""
    for name, field in kind.model_fields.items():
        annotation: Any = field.annotation
        choices = [annotation, *getattr(annotation, "__args__", ())]
        below = [c for c in choices if isinstance(c, type) and issubclass(c, Strict)]
        if below and below[0] is not ModelConfig:
            yield from keys(below[0], f"{prefix}{name}.")
        else:
            yield prefix + name


@pytest.mark.parametrize(
    ("heading", "kind"),
    [
        ("## RUN.yaml", RunConfig),
        ("## SERIES.yaml", SeriesConfig),
        ("## SWEEP.yaml", SweepConfig),
        ("## MODEL", ModelConfig),
        ("## CLUSTER", ClusterConfig),
    ],
)
def test_a_table_has_a_row_for_each_key_and_no_other(heading: str, kind: type[Strict]) -> None:
    rows = set(re.findall(r"^\| `([a-z0-9_.]+)` \|", section(heading), re.M))
    known = set(keys(kind))
    # A row of its own may say what the keys below it are for.
    mappings = {key.rsplit(".", 1)[0] for key in known if "." in key}
    assert rows - mappings == known


def test_a_recipe_s_keys_and_settings_have_rows() -> None:
    text = section("## RECIPE.yaml")
    rows = {name for row in re.findall(r"^\| (`[^|]+) \|", text, re.M) for name in quoted(row)}
    known = {key.removeprefix("sources.") for key in keys(Recipe)}
    assert known | {"sources"} == rows - (set(KINDS) - known)
    for name, kind in KINDS.items():
        begin = text.index(f"\n| `{name}` |", text.index("Settings of the steps"))
        mine = re.match(rf"\n\| `{name}` \|.*\n(?:\| \|.*\n)*", text[begin:])
        assert mine is not None
        said = {key for row in mine[0].splitlines() for key in quoted("|".join(row.split("|")[:3]))}
        assert said - {name} == set(kind.Settings.model_fields) - {"test_sets"}, name
    for rules in (ChineseRules, EnglishRules, OtherRules, CodeRules):
        for name in rules.model_fields:
            assert f"`{name}`" in text


def quoted(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def test_every_preset_has_a_row() -> None:
    assert set(re.findall(r"^\| `([a-z0-9-]+-[a-z0-9-]+)`", section("## MODEL"), re.M)) == set(
        preset_names()
    )


def test_every_cluster_has_a_row() -> None:
    rows = set(re.findall(r"^\| `([a-z0-9]+-[a-z0-9-]+)`", section("## CLUSTER"), re.M))
    assert rows == set(cluster_names()) - {LOCAL}


def verbs(command: Any, path: str) -> Iterator[tuple[str, set[str]]]:
    """Each verb with its options."""
    if hasattr(command, "commands"):
        for name, below in command.commands.items():
            yield from verbs(below, f"{path} {name}")
    else:
        names = {name for parameter in command.params for name in parameter.opts}
        yield path, {name for name in names if name.startswith("--")} - {"--help"}


VERBS = dict(verbs(typer.main.get_command(app), "teleflm"))
HEADINGS = re.findall(r"^### `teleflm .*`$", REFERENCE, re.M)


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_has_a_section_with_its_options_and_no_others(verb: str) -> None:
    (heading,) = (h for h in HEADINGS if re.match(rf"### `{verb}[ `]", h))
    assert set(re.findall(r"`(--[a-z-]+)", section(heading))) - {"--json"} == VERBS[verb] - {
        "--json"
    }
    assert ("--json" in section(heading)) == ("--json" in VERBS[verb])


def test_no_section_is_about_a_verb_that_is_gone() -> None:
    assert len(HEADINGS) == len(VERBS)


def anchors(page: Path) -> set[str]:
    """The anchors that a forge gives to a page's headings."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    titles = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_resolve(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_index_names_every_page() -> None:
    index = (DOCS / "README.md").read_text(encoding="utf-8")
    assert [page.name for page in PAGES if f"]({page.name})" not in index] == ["README.md"]
