"""The data and tokenizer verbs, from text to a look into the store."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from teleflm.cli import data, tokenizer
from teleflm.errors import DataError

app = typer.Typer()
app.add_typer(data.app, name="data")
app.add_typer(tokenizer.app, name="tokenizer")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    texts = [f"[bold]chapter {i}[/bold] \x1b[31mred\x1b[0m 春眠不觉晓\n" for i in range(200)]
    records = (json.dumps({"text": text}) for text in texts)
    (folder / "corpus.jsonl").write_text("\n".join(records))
    made = run(
        "tokenizer", "train", "--vocab-size", 364, "--out", folder / "tok", folder / "corpus.jsonl"
    )
    assert made.exit_code == 0, made.output
    prepared = run(
        "data", "prepare", "--tokenizer", folder / "tok", "--out", folder / "store",
        "--held-out", 0.1, folder / "corpus.jsonl",
    )  # fmt: skip
    assert prepared.exit_code == 0, prepared.output
    assert "1 domains" in prepared.stdout
    assert "preparing" in prepared.stderr
    return folder


def test_inspect_json_is_one_object(folder: Path) -> None:
    result = run("data", "inspect", folder / "store", "--json", "--samples", 2)
    content = json.loads(result.stdout)
    assert result.stderr == ""
    domain = content["domains"]["corpus"]
    assert domain["documents"] + domain["held_out_documents"] == 200
    assert domain["tokens_per_byte"] == domain["tokens"] / domain["bytes"]
    assert len(content["samples"]) == 2
    assert content["samples"][0]["text"].startswith("[bold]chapter ")


def test_inspect_tables_fit_and_show_markup_and_escapes_as_text(folder: Path) -> None:
    result = run("data", "inspect", folder / "store", "--sequence-length", 40)
    assert result.exit_code == 0
    assert max(len(line) for line in result.stdout.splitlines()) <= 80
    assert "[bold]chapter" in result.stdout
    assert "\x1b" not in result.stdout
    assert "\\x1b[31mred" in result.stdout


def test_a_smaller_vocabulary_is_said(folder: Path, tmp_path: Path) -> None:
    result = run(
        "tokenizer", "train", "--vocab-size", 5000, "--out", tmp_path, folder / "corpus.jsonl"
    )
    assert "note: the corpus has repeated pairs for a vocabulary of" in result.stderr


def test_nothing_is_overwritten_without_force(folder: Path) -> None:
    train = ("tokenizer", "train", "--vocab-size", 364, "--out", folder / "tok")
    assert isinstance(run(*train, folder / "corpus.jsonl").exception, DataError)
    assert run(*train, "--force", folder / "corpus.jsonl").exit_code == 0
    again = ("data", "prepare", "--tokenizer", folder / "tok", "--out", folder / "store")
    assert isinstance(run(*again, folder / "corpus.jsonl").exception, DataError)
    assert run(*again, "--force", folder / "corpus.jsonl").exit_code == 0


def test_help_has_an_example() -> None:
    for verb in (("tokenizer", "train"), ("data", "prepare"), ("data", "inspect")):
        assert f"Example: teleflm {' '.join(verb)}" in run(*verb, "--help").stdout
    assert run("data", "prepare").exit_code == 2
