"""teleflm eval: figures of one model, of several, of a series, and what it refuses."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from teleflm.data.store import TokenStore
from teleflm.files import read_jsonl
from tests.conftest import Command
from tests.evaluation.task_files import write_tasks
from tests.report.made_up import write_summary
from tests.report.page import read_page


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("tasks") / "tasks")


def test_a_run_has_the_figures_of_its_last_evaluation(teleflm: Command, run: Path) -> None:
    code, out, err = teleflm("eval", run, "--tokens", 200, "--json")
    found, last = json.loads(out), read_jsonl(run / "evaluation.jsonl")[-1]
    assert code == 0 and "evaluating run/step-00000006" in err
    assert found["bpb"] == pytest.approx(last["bpb"], rel=1e-6)
    assert found["bpb_mean"] == pytest.approx(last["bpb_mean"], rel=1e-6)
    assert {key: found[key] for key in ("tokens", "bytes", "step", "sequence_length", "dtype")} == {
        **{key: last[key] for key in ("tokens", "bytes", "step")},
        "sequence_length": 16,
        "dtype": "fp32",
    }
    assert "tasks" not in found
    code, out, _ = teleflm("eval", run, "--tokens", 200, "--dtype", "bf16", "--json")
    rough = json.loads(out)
    assert 0 < abs(rough["bpb_mean"] / found["bpb_mean"] - 1) < 1e-2


def test_tasks_alone_and_beside_text(
    teleflm: Command, run: Path, corpus: Path, folder: Path
) -> None:
    tasks = ("--tasks", "tiny_choice,tiny_text", "--include", folder, "--limit", 3)
    code, out, _ = teleflm("eval", run, *tasks, "--json")
    alone = json.loads(out)
    assert code == 0 and (alone["bpb"], alone["bpb_mean"], alone["tokens"]) == ({}, None, 0)
    assert alone["tasks"].keys() == {"tiny_choice", "tiny_text"}
    assert 0 <= alone["tasks"]["tiny_choice"]["acc,none"] <= 1
    text = ("--data", corpus / "code.txt", "--tokens", 100, "--windows", "rolling")
    # A layout of one rank is this process.
    code, out, _ = teleflm("eval", run, *tasks, *text, "--layout", "tp=1")
    assert code == 0
    assert "bits per byte  code" in out and "tiny_choice    acc" in out
    assert "windows of 16, fp32" in out and "rolling" in out


def test_models_are_compared_at_one_length(
    teleflm: Command, run: Path, grown: Path, store: TokenStore, folder: Path, tmp_path: Path
) -> None:
    page = tmp_path / "pages" / "page.html"
    asked = ("eval", run, grown, "--tokens", 200, "--compare", "--out", page)
    tasks = ("--data", store.path, "--tasks", "tiny_choice", "--include", folder, "--limit", 4)
    code, out, _ = teleflm(*asked, *tasks)
    assert code == 0 and f"(1) {run}\n(2) {grown}\n" in out
    lines = {line.split("  ")[1].strip(): line for line in out.splitlines() if "bits per" in line}
    assert lines.keys() == {"english", "chinese", "code", "mean of domains"}
    # Two figures, and their difference.
    assert lines["code"].count("±") == 3
    text = read_page(page).text
    assert "tiny_choice" in text and "english" in text and str(grown) in text
    _, out, _ = teleflm(*asked[:-2], "--json")
    models = json.loads(out)["models"]
    # The grown model has no run: by itself it has no text, and reads all of its context at once.
    assert [each["sequence_length"] for each in models.values()] == [16, 16]
    assert list(models) == [str(run), str(grown)]
    one, other = models.values()
    assert "bpb_difference" not in one
    for domain, (value, error) in other["bpb_difference"].items():
        # A growth changes nothing, whatever the text.
        assert value == pytest.approx(other["bpb"][domain] - one["bpb"][domain], abs=1e-9)
        assert 0 <= error < 1e-5 < one["bpb_stderr"][domain]


def test_a_series_page_shows_its_stages_until_they_train_on(
    teleflm: Command, run: Path, tmp_path: Path
) -> None:
    root = tmp_path / "series"
    (root / "stages").mkdir(parents=True)
    shutil.copytree(run, root / "stages" / "small")
    shutil.copytree(run, root / "stages" / "big")
    stage = {"model": {}, "first_step": 0, "last_step": 6}
    names = ("small", "big")
    stages = [{**stage, "name": name, "run_dir": f"stages/{name}"} for name in names]
    write_summary(root, {"title": "Two", "stages": stages})
    code, out, err = teleflm("eval", root, "--tokens", 200, "--json")
    assert code == 0 and "page: " in err
    models = json.loads(out)["models"]
    assert list(models) == [str(root / "stages" / name) for name in names]
    kept = json.loads((root / "stages" / "big" / "evaluation.json").read_text())
    assert kept == models[str(root / "stages" / "big")]
    text = read_page(root / "report.html").text
    assert "Evaluated afterwards" in text and f"{kept['bpb']['code']:.3f} ± " in text
    from teleflm.report.series import write_series_report

    write_summary(root, {"title": "Two", "stages": [{**each, "last_step": 8} for each in stages]})
    assert "Evaluated afterwards" not in read_page(write_series_report(root)).text
    (root / "stages" / "big" / "evaluation.json").write_text("{")
    code, _, err = teleflm("eval", root / "stages" / "none")
    assert code == 2 and "no such checkpoint" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--data", "nowhere"), "error: nowhere: no such file or folder"),
        (("--all", "--data", "{corpus}"), "no token store, so nothing is held out"),
        (("--sequence-length", 65), "--sequence-length 65: the context of run/step-"),
        (("--include", "{tasks}"), "name the tasks with --tasks"),
        (("--few-shot", 0), "name the tasks with --tasks"),
        (("--out", "page.html"), "add --compare"),
        (("{run}", "--compare"), "is named twice"),
        (("--compare", "--out", "{tasks}/tiny_text.yaml"), "is there already"),
        (("--tasks", "tiny_choice", "--include", "nowhere"), "--include nowhere: no such folder"),
        (
            ("--tasks", "tiny_choice", "--include", "{tasks}", "--apply-chat-template"),
            "no chat template there",
        ),
        (("--layout", "tp=2"), "does not divide 1 ranks"),
        (("--layout", "tq=2"), "tq"),
        (("--domain-by", "page"), "--domain-by page: choose one of"),
    ],
)
def test_bad_input_is_named(
    teleflm: Command,
    run: Path,
    corpus: Path,
    folder: Path,
    options: tuple[object, ...],
    message: str,
) -> None:
    given = [str(o).format(corpus=corpus, tasks=folder, run=run) for o in options]
    code, _, err = teleflm("eval", run, *given)
    assert code == 2 and message in err and "Traceback" not in err


def test_an_export_has_no_text_of_its_own_and_perhaps_no_tokenizer(
    teleflm: Command, grown: Path, store: TokenStore, folder: Path, tmp_path: Path
) -> None:
    code, _, err = teleflm("eval", grown)
    assert code == 2 and "no run made it" in err and "--data" in err
    bare = tmp_path / "bare"
    assert teleflm("export", grown, bare, "--format", "granite")[0] == 0
    for file in bare.glob("*token*"):
        file.unlink()
    code, _, err = teleflm("eval", bare, "--tasks", "tiny_choice", "--include", folder)
    assert code == 2 and "no tokenizer there, so no task can be read" in err
    # The tokens of a store are as good without one.
    code, out, _ = teleflm("eval", bare, "--data", store.path, "--tokens", 1, "--json")
    assert code == 0 and json.loads(out)["bpb"].keys() == {"english", "chinese", "code"}


def test_without_lm_eval_tasks_name_the_extra(
    teleflm: Command, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    code, _, err = teleflm("eval", run, "--tasks", "tiny_choice")
    assert code == 2 and "pip install 'teleflm[eval]'" in err
