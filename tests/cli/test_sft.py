"""teleflm sft: a model learns to answer, and to stop; on the same loop as all training."""

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from teleflm.checkpoint.load import find_checkpoint
from teleflm.cli.main import app
from teleflm.data.loader import Loader
from teleflm.data.windows import Rows
from teleflm.files import read_jsonl
from tests.conftest import Command, Outcome
from tests.data.chats import CHATML

EXAMPLES = Path(__file__).parents[2] / "examples"
MODEL = {
    "hidden_size": 64,
    "intermediate_size": 176,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chat store of 300 conversations and 100 held out, and a checkpoint that knows nothing."""
    folder = tmp_path_factory.mktemp("sft")
    script = EXAMPLES / "sft" / "capitals.py"
    talks = subprocess.run([sys.executable, script], capture_output=True, check=True).stdout
    (folder / "talks.jsonl").write_bytes(talks)
    words = [m["content"] for line in talks.splitlines() for m in json.loads(line)["messages"]]
    (folder / "text.txt").write_text("\n".join(words), encoding="utf-8")
    tokenizer, text = folder / "tokenizer", folder / "text.txt"
    for command in (
        ("tokenizer", "train", "--vocab-size", 600, "--out", tokenizer, text),
        ("data", "prepare", "--tokenizer", tokenizer, "--out", folder / "text", text),
        (
            *("data", "prepare", "--chat", "tele-flm", "--tokenizer", tokenizer),
            *("--out", folder / "chats", "--held-out", 0.25, folder / "talks.jsonl"),
        ),
    ):
        done = CliRunner().invoke(app, list(map(str, command)))
        assert done.exit_code == 0, done.output
    fields = {
        "run_dir": str(folder / "nothing"),
        "model": MODEL,
        "data": {"path": str(folder / "text"), "sequence_length": 64},
        "training": {"steps": 1, "global_batch": 1, "dtype": "fp32"},
    }
    (folder / "train.yaml").write_text(yaml.safe_dump(fields), encoding="utf-8")
    assert CliRunner().invoke(app, ["train", str(folder / "train.yaml")]).exit_code == 0
    return folder


def sft(teleflm: Command, folder: Path, run: Path, *settings: str) -> Outcome:
    """The example on that store, at rates for so small a model."""
    return teleflm(
        "sft",
        EXAMPLES / "sft.yaml",
        f"start_from={folder / 'nothing'}",
        f"data.path={folder / 'chats'}",
        f"run_dir={run}",
        "data.sequence_length=64",
        "training.dtype=fp32",
        "training.global_batch=16",
        "optimizer.learning_rate=1e-2",
        "optimizer.matrix_learning_rate=1e-3",
        *settings,
    )


@pytest.mark.slow
def test_it_answers_what_it_was_never_asked_and_stops(
    folder: Path, tmp_path: Path, teleflm: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    outcome = sft(teleflm, folder, run, "training.steps=140", "evaluation.answers=100")
    assert outcome.code == 0, outcome.err
    assert (
        "300 conversations in 148 rows of 64 tokens; 140 steps of 16 rows read them 15.1"
        in outcome.err
    )
    first, *_, last = read_jsonl(run / "evaluation.jsonl")
    assert (first["exact_match"], first["answers"], last["answers"]) == (0.0, 100, 100)
    assert last["exact_match"] >= 0.95
    told = f"answers {last['exact_match']:.0%} of 100 held-out conversations word for word"
    assert told in outcome.err
    # From 1 to a hundredth of it, at the last step.
    rates = [row["lr"] for row in read_jsonl(run / "metrics.jsonl")]
    assert max(rates) == 1e-2 and rates[-1] == pytest.approx(1e-4)
    # Once more as a user has it: an export, which knows the template and its stop token.
    assert teleflm("export", run, tmp_path / "llama", "--format", "llama").code == 0
    assert "apply_chat_template" in (tmp_path / "llama" / "README.md").read_text(encoding="utf-8")
    for place in (run, tmp_path / "llama"):
        asked = "What is the capital of Peru?\n请问日本的首都叫什么？\n"
        monkeypatch.setattr("sys.stdin", io.StringIO(asked))
        said = teleflm("chat", place)
        assert said.out == "It is Lima.\n是东京。\n", said.err


def test_it_goes_on_within_an_epoch_as_if_never_stopped(
    folder: Path, tmp_path: Path, teleflm: Command
) -> None:
    """Text beside the conversations too: its rows are read with a document mask then."""
    both = {"chats": [str(folder / "chats"), 2.0], "text": [str(folder / "text"), 1.0]}
    settings = [
        f"data.path={json.dumps(both)}",
        "training.global_batch=4",
        "evaluation.every=100",
        "evaluation.answers=0",
        "checkpoint.every=3",
    ]
    assert sft(teleflm, folder, tmp_path / "whole", "training.steps=6", *settings).code == 0
    parted = tmp_path / "parted"
    assert sft(teleflm, folder, parted, "training.steps=6", *settings).code == 0
    shutil.rmtree(find_checkpoint(parted))
    assert sft(teleflm, folder, parted, "training.steps=6", *settings).code == 0
    rows: list[list[dict[str, Any]]] = []
    for run in (tmp_path / "whole", parted):
        clocks = ("tokens_per_second", "mfu")
        found = read_jsonl(run / "metrics.jsonl")
        rows.append([{k: v for k, v in row.items() if k not in clocks} for row in found])
    assert rows[0] == rows[1]


def test_an_epoch_reads_each_row_once(
    folder: Path, tmp_path: Path, teleflm: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the checkpoint has read before."""
    seen: list[tuple[str, int]] = []
    batch = Loader.batch

    def watched(loader: Loader, step: int, *share: int) -> Rows:
        seen.extend(loader.sources(step))
        return batch(loader, step, *share)

    monkeypatch.setattr(Loader, "batch", watched)
    settings = ("training.steps=37", "training.global_batch=4", "evaluation.answers=0")
    outcome = sft(teleflm, folder, tmp_path / "run", *settings)
    assert "37 steps of 4 rows read them 1.0 times" in outcome.err
    assert sorted(seen) == [("talks", row) for row in range(148)]


def prepared(teleflm: Command, folder: Path, out: Path, sizes: list[int]) -> Path:
    """A store of conversations, with questions of so many letters."""
    talks = [
        [{"role": "user", "content": "?" * size}, {"role": "assistant", "content": "."}]
        for size in sizes
    ]
    lines = (json.dumps({"messages": talk}) for talk in talks)
    (out / "made.jsonl").write_text("\n".join(lines), encoding="utf-8")
    outcome = teleflm(
        *("data", "prepare", "--chat", "tele-flm", "--tokenizer", folder / "tokenizer"),
        *("--out", out / "made", out / "made.jsonl"),
    )
    assert outcome.code == 0, outcome.err
    return out / "made"


def test_epochs_of_conversations_are_those_of_their_rows(
    folder: Path, tmp_path: Path, teleflm: Command
) -> None:
    """However full they are."""
    wide = prepared(teleflm, folder, tmp_path, [36] * 40)
    epochs = {
        "made": {"path": str(wide), "epochs": 2},
        "talks": {"path": str(folder / "chats"), "epochs": 1},
    }
    run = tmp_path / "run"
    outcome = sft(teleflm, folder, run, f"data.path={json.dumps(epochs)}", "training.steps=14")
    assert outcome.code == 0, outcome.err
    assert (
        "talks: 300 conversations in 148 rows of 64 tokens; 14 steps of 16 rows read them 1.0"
        in (outcome.err)
    )
    assert "made: 39 conversations in 39 rows of 64 tokens; 14 steps of 16 rows read them 2.0" in (
        outcome.err
    )
    outcome = teleflm("data", "mix", folder / "chats", "--tokens", 1000)
    assert "conversations are read in rows of data.sequence_length" in outcome.err
    outcome = teleflm("data", "mix", run / "config.yaml", "--tokens", 14 * 16 * 64, "--json")
    domains = json.loads(outcome.out)["domains"]
    assert domains["talks"]["epochs"] == pytest.approx(224 / 226)
    assert domains["made"]["epochs"] == pytest.approx(2 * 224 / 226)


def test_conversations_that_are_evaluated_alone_change_nothing_of_the_run(
    folder: Path, tmp_path: Path, teleflm: Command
) -> None:
    """Of text by a model that has read some, be they too long for a row, too."""
    text, weighted = [str(folder / "text"), 1.0], [str(folder / "chats"), 0.0]
    rows = []
    for name, sources in (("alone", {"text": text}), ("beside", {"text": text, "chats": weighted})):
        outcome = teleflm(
            *("train", folder / "train.yaml", f"run_dir={tmp_path / name}", "training.steps=3"),
            *(f"start_from={folder / 'nothing'}", f"data.path={json.dumps(sources)}", "model=null"),
            *("data.sequence_length=4", "schedule.warmup_steps=1", "evaluation.answers=0"),
        )
        assert outcome.code == 0, outcome.err
        rows.append([row["loss"] for row in read_jsonl(tmp_path / name / "metrics.jsonl")])
    assert rows[0] == rows[1]


def test_text_beside_conversations_is_evaluated_as_it_was_trained_on(
    folder: Path, tmp_path: Path, teleflm: Command
) -> None:
    both = {"chats": [str(folder / "chats"), 1.0], "text": [str(folder / "text"), 1.0]}
    run = tmp_path / "run"
    settings = (f"data.path={json.dumps(both)}", "training.steps=1", "evaluation.answers=0")
    assert sft(teleflm, folder, run, *settings).code == 0
    outcome = teleflm("eval", run, "--data", folder / "text", "--json")
    assert json.loads(outcome.out)["document_mask"] is True


def test_eval_by_another_template(folder: Path, tmp_path: Path, teleflm: Command) -> None:
    """Whose marks took the places of tokens that waited: text has the tokens that it had."""
    chatml, store = tmp_path / "chatml.jinja", tmp_path / "store"
    chatml.write_text(CHATML)
    prepared = teleflm(
        *("data", "prepare", "--chat", chatml, "--tokenizer", folder / "tokenizer"),
        *("--out", store, folder / "talks.jsonl"),
    )
    assert prepared.code == 0, prepared.err
    run, settings = tmp_path / "run", ("training.steps=1", "evaluation.answers=0")
    assert sft(teleflm, folder, run, f"data.path={store}", *settings).code == 0
    outcome = teleflm("eval", folder / "nothing", run, "--data", store, "--compare")
    assert outcome.code == 0, outcome.err
    assert "template" not in outcome.err
    assert teleflm("eval", run, "--data", folder / "text").code == 0
    outcome = teleflm("eval", run, "--data", folder / "chats")
    assert outcome.code == 0, outcome.err
    assert f"{folder / 'chats'} is written by another chat template than that of" in outcome.err


def test_bad_input(folder: Path, tmp_path: Path, teleflm: Command) -> None:
    for setting, told in (
        ("start_from=null", "start_from is missing"),
        (f"data.path={folder / 'text'}", "no conversations in"),
        (
            f"data.path={{chats: [{folder / 'chats'}, 0], text: [{folder / 'text'}, 1]}}",
            f"no conversations in {folder / 'text'}, which is trained on",
        ),
        ("data.sequence_length=4", "none of its 300 conversations has a reply that ends within"),
    ):
        outcome = sft(teleflm, folder, tmp_path / "run", setting)
        assert outcome.code == 2 and told in outcome.err, outcome.err


def test_eval_has_the_figures_of_the_run(folder: Path, tmp_path: Path, teleflm: Command) -> None:
    """Of the replies, whose store is the run's own; and of those beside what it started from."""
    run = tmp_path / "run"
    settings = ("training.steps=2", "training.global_batch=4", "evaluation.answers=0")
    assert sft(teleflm, folder, run, *settings).code == 0
    *_, own = read_jsonl(run / "evaluation.jsonl")
    outcome = teleflm("eval", run, "--json")
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    assert (found["tokens"], found["bytes"]) == (own["tokens"], own["bytes"])
    assert found["loss"] == pytest.approx(own["loss"], rel=1e-5)
    assert found["conversations"] == {"read": 100, "cut": 0, "left_out": 0}
    assert found["document_mask"] is True
    outcome = teleflm("eval", run, folder / "nothing", "--compare", "--sequence-length", 17)
    assert outcome.code == 0, outcome.err
    assert "nats per token  of replies" in outcome.out
    assert "65 without one were left out" in outcome.out
    outcome = teleflm("eval", run, "--sequence-length", 17)
    assert (
        "longer than 17 tokens:\n  13 were cut behind their last reply that fits\n" in outcome.out
    )


def test_long_conversations_are_cut_and_told(
    folder: Path, tmp_path: Path, teleflm: Command
) -> None:
    settings = ("data.sequence_length=17", "training.steps=1", "evaluation.answers=0")
    outcome = sft(teleflm, folder, tmp_path / "run", *settings)
    assert outcome.code == 0
    assert (
        "longer than a row: 49 of them are cut behind a reply, and 208 more are left out"
        in outcome.err
    )
    assert "held-out" not in outcome.err


def test_held_out_conversations_of_which_none_fits_are_told(
    folder: Path, tmp_path: Path, teleflm: Command
) -> None:
    # Of so few the last one is held out.
    store = prepared(teleflm, folder, tmp_path, [*[9] * 8, 90])
    settings = (f"data.path={store}", "training.steps=1")
    outcome = sft(teleflm, folder, tmp_path / "run", *settings)
    assert outcome.code == 0, outcome.err
    assert "made: none of 1 held-out conversations has a reply that ends within" in outcome.err
