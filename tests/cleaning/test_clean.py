"""The frame of `data clean`: the result is a function of the recipe and the text."""

import json
import os
import random
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from teleflm.cleaning import clean as clean_module
from teleflm.cleaning.clean import clean
from teleflm.cleaning.recipe import load_recipe
from teleflm.data.unpack import Progress
from teleflm.errors import ConfigError, DataError, MachineError
from tests.cleaning.job import run
from tests.cleaning.stubs import KINDS
from tests.cleaning.written import records

ROOT = Path(__file__).parents[2]


def write_corpus(folder: Path, files: int = 6, records: int = 40) -> None:
    """Files of records, of which every text stands there several times."""
    folder.mkdir()
    chance = random.Random(0)
    for file in range(files):
        rows = [
            {
                "text": f"number {chance.randrange(records)} of the documents {'é' * (row % 3)} ",
                "id": f"{file}-{row}",
                "url": "http://example.org",
                "metadata": {"rank": 7, "domain": "first" if row % 2 else "second"},
            }
            for row in range(records)
        ]
        rows[3]["text"] = "short"
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{file}.jsonl").write_text(lines)


def write_recipe(folder: Path, **keys: Any) -> str:
    """Two sources, of small shards, and both steps."""
    recipe = {
        "out": str(folder / "out"),
        "sources": [
            {"name": "web", "path": str(folder / "corpus" / "[0-3].jsonl"), "language": "en"},
            {"name": "books", "path": str(folder / "corpus"), "language": "en", "epochs": 2.5},
        ],
        "steps": [{"short": {"least": 10}}, "twice"],
        "executor": {"workers": 1},
    } | keys
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(recipe))
    return str(path)


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    write_corpus(tmp_path / "corpus")
    return write_recipe(tmp_path)


def result(out: Path) -> dict[str, bytes]:
    """Every file of a result, but for the seconds that it took."""
    files = {
        str(path.relative_to(out)): path.read_bytes()
        for path in out.rglob("*")
        if path.is_file() and ".work" not in path.parts and path.suffix != ".html"
    }
    summary = json.loads(files["clean.json"])
    for step in summary["steps"]:
        del step["seconds"]
    files["clean.json"] = json.dumps(summary).encode()
    return files


def test_every_document_is_in_one_place_with_its_reason(recipe: str, tmp_path: Path) -> None:
    summary = run(recipe)
    kept = [*records(tmp_path / "out/text/web"), *records(tmp_path / "out/text/books")]
    short, twice = (records(tmp_path / "out" / "dropped" / name) for name in ("short", "twice"))
    corpus = [
        json.loads(line)
        for pattern in ("[0-3].jsonl", "*.jsonl")
        for path in sorted((tmp_path / "corpus").glob(pattern))
        for line in path.read_text().splitlines()
    ]
    ids = [record["id"] for record in (*kept, *short, *twice)]
    assert sorted(ids) == sorted(record["id"] for record in corpus)
    assert {record["reason"] for record in short} == {"too short"}
    assert {record["reason"] for record in twice} == {"a copy"}
    first: dict[str, dict[str, Any]] = {}
    for record in corpus:
        if len(record["text"].rstrip()) >= 10:
            first.setdefault(record["text"].rstrip(), record)
    assert [record["text"] for record in kept] == list(first)
    assert [record["id"] for record in kept] == [record["id"] for record in first.values()]
    for record in kept:
        original = first[record["text"]]
        metadata = record["metadata"]
        assert metadata["domain"] == original["metadata"]["domain"]
        assert (metadata["rank"], metadata["url"]) == (7, "http://example.org")
        assert metadata["weight"] == {"web": 1.0, "books": 2.5}[metadata["source"]]

    steps = {step["name"]: step for step in summary["steps"]}
    assert list(steps) == ["short", "twice"]
    assert steps["short"]["documents_in"] == len(corpus)
    assert steps["short"]["documents_out"] == steps["twice"]["documents_in"] == len(corpus) - 10
    assert steps["short"]["reasons"] == {"too short": 10}
    assert steps["twice"]["reasons"] == {"a copy": len(twice)}
    assert steps["short"]["bytes_in"] == sum(len(r["text"].encode()) for r in corpus)
    assert steps["twice"]["bytes_out"] == sum(len(r["text"].encode()) for r in kept)
    sources = summary["sources"]
    assert {name: source["documents"] for name, source in sources.items()} == {
        "web": 160,
        "books": 240,
    }
    assert sum(source["kept_documents"] for source in sources.values()) == len(kept)
    assert len(steps["twice"]["samples"]["dropped"]) == 20
    assert steps["short"]["details"]["blanks"] > 0


@pytest.mark.slow
def test_the_number_of_workers_has_no_say(recipe: str, tmp_path: Path) -> None:
    results = []
    for workers in (1, 2, 7):
        out = tmp_path / f"out{workers}"
        run(recipe, f"out={out}", f"executor.workers={workers}", "shard_megabytes=1")
        results.append(result(out))
    assert results[0] == results[1] == results[2]


@pytest.mark.slow
def test_killed_again_and_again_it_ends_the_same(tmp_path: Path) -> None:
    write_corpus(tmp_path / "corpus", files=40, records=400)
    recipe = write_recipe(tmp_path)
    command = [sys.executable, "-m", "tests.cleaning.job", recipe, "executor.workers=2"]
    chance = random.Random(1)
    killed = 0
    while killed < 10:
        child = subprocess.Popen(command, cwd=ROOT)
        try:
            # Into the work: what a start takes is some seconds of this.
            assert child.wait(chance.uniform(0.5, 5)) == 0
            break
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            killed += 1
    run(recipe)
    run(recipe, f"out={tmp_path / 'undisturbed'}")
    assert killed
    assert result(tmp_path / "out") == result(tmp_path / "undisturbed")


def test_what_is_done_is_not_done_again(recipe: str, tmp_path: Path) -> None:
    summary = run(recipe)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.zst")}
    assert run(recipe) == summary
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.zst")} == before
    assert run(recipe, force=True) != {}
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.zst")} != before


@pytest.mark.slow
def test_a_worker_that_dies_is_named_and_its_work_is_done_next_time(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (killer := tmp_path / "killer").mkdir()
    steps = json.dumps(["short", {"twice": {"killer": str(killer)}}])
    more = ("executor.workers=2", f"steps={steps}")
    with pytest.raises(MachineError, match=r"a worker died in the phase 'twice, all'"):
        run(recipe, *more)
    (done,) = (tmp_path / "out/.work/documents-01").glob("00000*")
    before = done.stat().st_mtime_ns
    monkeypatch.setattr(clean_module, "_remove_documents", lambda *_, **__: None)
    monkeypatch.setattr(clean_module.shutil, "rmtree", lambda *_, **__: None)
    run(recipe, *more)
    assert done.stat().st_mtime_ns == before


def test_another_recipe_or_other_text_is_refused(recipe: str, tmp_path: Path) -> None:
    run(recipe)
    with pytest.raises(ConfigError, match="another recipe"):
        run(recipe, "steps=[short]")
    run(recipe, "executor.workers=2")  # who does the work has no say
    corpus = tmp_path / "corpus" / "5.jsonl"
    corpus.write_text(corpus.read_text() + '{"text": "one more line of the text"}\n')
    with pytest.raises(ConfigError, match="have changed"):
        run(recipe)
    run(recipe, force=True)
    assert "one more line of the text" in {r["text"] for r in records(tmp_path / "out" / "text")}


def test_a_folder_of_something_else_is_left_alone(recipe: str, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    for force in (False, True):
        with pytest.raises(ConfigError, match="no result of data clean"):
            run(recipe, force=force)
    assert (tmp_path / "out" / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_bad_line_is_named(recipe: str, tmp_path: Path, workers: int) -> None:
    bad = tmp_path / "corpus" / "5.jsonl"
    good = bad.read_text()
    bad.write_text(good.replace('"id"', "id", 1))
    with pytest.raises(DataError, match=r"5\.jsonl, line 1"):
        run(recipe, f"executor.workers={workers}")
    assert not (tmp_path / "out" / "text").exists()


def test_documents_lost_between_two_phases_are_noticed(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from teleflm.cleaning import executors

    task = executors._task

    def losing(executor: Any, rank: int) -> None:
        task(executor, rank)
        for path in (tmp_path / "out" / ".work").glob("documents-*/00001.jsonl.zst"):
            path.unlink()

    monkeypatch.setattr(executors, "_task", losing)
    with pytest.raises(MachineError, match="the disk lost some"):
        run(recipe, "shard_megabytes=1", f"sources={json.dumps(_each_its_source(tmp_path))}")


def test_a_shard_that_nobody_did_is_noticed(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As Slurm begins a phase behind the last of several arrays, though an earlier one failed.
    from teleflm.cleaning import executors

    task = executors._task

    def losing(executor: Any, rank: int) -> None:
        task(executor, rank)
        for path in (tmp_path / "out" / ".work" / "tallies").glob("*/00001.json"):
            path.unlink()

    monkeypatch.setattr(executors, "_task", losing)
    with pytest.raises(MachineError, match="the step 'read' has done 5 of 6 tasks"):
        run(recipe, f"sources={json.dumps(_each_its_source(tmp_path))}")
    assert not (tmp_path / "out" / "clean.json").exists()


def _each_its_source(folder: Path) -> list[dict[str, str]]:
    return [
        {"name": path.stem, "path": str(path), "language": "en"}
        for path in sorted((folder / "corpus").glob("*.jsonl"))
    ]


@pytest.mark.parametrize(
    ("keys", "fault"),
    [
        ({"steps": ["shrot"]}, "steps.0: no step 'shrot'; the steps are short, twice"),
        ({"steps": [{"short": {"lest": 3}}]}, "did you mean 'least'"),
        ({"steps": ["short", "short"]}, "short is there twice"),
        ({"step": []}, "did you mean 'steps'"),
        ({"test_sets": ["x.jsonl"]}, "no step asks for them"),
        ({"sources": []}, "sources"),
        ({"sources": [{"name": "a/b", "path": "x", "language": "en"}]}, "sources.0.name"),
        ({"executor": {"kind": "slurm"}}, "options.partition and options.time"),
        ({"executor": {"options": {"time": "1:00"}}}, "no options"),
    ],
)
def test_a_recipe_that_makes_no_sense_says_where(
    tmp_path: Path, keys: dict[str, Any], fault: str
) -> None:
    write_corpus(tmp_path / "corpus")
    with pytest.raises(ConfigError) as caught:
        run(write_recipe(tmp_path, **keys))
    assert fault in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("path", ["nowhere", "nowhere/*.jsonl", "empty"])
def test_a_source_that_is_missing_or_empty_is_named(tmp_path: Path, path: str) -> None:
    (tmp_path / "empty").mkdir()
    sources = [{"name": "web", "path": str(tmp_path / path), "language": "en"}]
    with pytest.raises(DataError, match=f"source web: {tmp_path / path.partition('/')[0]}"):
        run(write_recipe(tmp_path, sources=sources))


def test_progress_reaches_its_total_also_when_it_goes_on(recipe: str, tmp_path: Path) -> None:
    counts: list[int] = []
    totals: list[int] = []

    @contextmanager
    def bar(total: int) -> Any:
        totals.append(total)
        counts.append(0)

        def advance(count: int) -> None:
            counts[-1] += count

        progress: Progress = advance
        yield progress

    bad = tmp_path / "corpus" / "5.jsonl"
    good = bad.read_text()
    bad.write_text(good[:-20])
    os.utime(bad, ns=(0, 0))
    sources = json.dumps(_each_its_source(tmp_path))
    loaded = load_recipe(recipe, [f"sources={sources}"])
    with pytest.raises(DataError):
        clean(loaded, KINDS, recipe, bar)
    assert 0 < counts[0] < totals[0]
    bad.write_text(good)
    clean(loaded, KINDS, recipe, bar, force=True)
    assert counts[1] == totals[1]


def test_tokens_are_estimated_from_a_sample(recipe: str, tmp_path: Path) -> None:
    from teleflm.data.tokenizer import Tokenizer
    from teleflm.data.tokenizer_training import train_tokenizer

    train_tokenizer([tmp_path / "corpus"], 364, tmp_path / "tokenizer")
    summary = run(recipe, f"tokenizer={tmp_path / 'tokenizer'}")
    tokenizer = Tokenizer.load(tmp_path / "tokenizer")
    kept = sum(len(tokenizer.encode(record["text"])) for record in records(tmp_path / "out/text"))
    said = sum(source["kept_tokens"] for source in summary["sources"].values())
    assert said == pytest.approx(kept, rel=0.2)
    assert summary["steps"][-1]["tokens_out"] == pytest.approx(kept, rel=0.2)


def test_settings_change_single_steps_of_a_recipe(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "recipe: web-en\nout: clean\nsources: [{name: a, path: b, language: en}]\n"
        "settings: {minhash: {threshold: 0.9}, language: false, mask: true}\n"
    )
    steps = load_recipe(str(path), ["settings.quality.model=m.npz"]).steps
    names = [next(iter(step)) for step in steps if isinstance(step, dict)]
    assert "language" not in names and "decontaminate" not in names and "mask" in names
    assert {"minhash": {"threshold": 0.9}} in steps
    assert {"quality": {"model": "m.npz"}} in steps
    with pytest.raises(ConfigError, match="'minhsh' is none of the steps"):
        load_recipe(str(path), ["settings.minhsh.threshold=1"])
