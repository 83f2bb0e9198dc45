"""teleflm data prepare --chat, and a look into what it makes."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Command
from tests.data.chats import CHATML, chat_folder, made_up


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chats")
    chat_folder(folder / "tokenizer", CHATML)
    lines = [json.dumps({"messages": talk}) + "\n" for talk in made_up(20, seed=7)]
    odd = [
        {"role": "user", "content": "x \x1b[31m"},
        {"role": "assistant", "content": "[bold]那 <_end>"},
    ]
    (folder / "talks.jsonl").write_text("".join([json.dumps({"messages": odd}) + "\n", *lines]))
    return folder


def prepare(folder: Path, *options: object) -> tuple[object, ...]:
    tokenizer = ("--tokenizer", folder / "tokenizer")
    return ("data", "prepare", *options, *tokenizer, folder / "talks.jsonl")


@pytest.fixture
def store(folder: Path, tmp_path: Path, teleflm: Command) -> Path:
    out = tmp_path / "store"
    outcome = teleflm(*prepare(folder, "--chat", "tele-flm", "--out", out, "--held-out", 0.1))
    assert outcome.code == 0, outcome.err
    assert "1 domains, 19 conversations and 2 held out, by the template tele-flm" in outcome.out
    return out


def test_a_conversation_is_shown_with_what_counts(store: Path, teleflm: Command) -> None:
    outcome = teleflm("data", "inspect", store, "--json", "--samples", 99)
    content: dict[str, Any] = json.loads(outcome.out)
    assert (content["kind"], content["template"]) == ("chat", "tele-flm")
    samples = content["samples"]
    assert [sample["position"] for sample in samples] == list(range(19))
    first = samples[0]
    assert first["text"] == "<_user>x \x1b[31m<_bot>[bold]那 <_end><_end>"
    assert [first["text"][start:end] for start, end in first["counted"]] == [
        "[bold]那 <_end><_end>"
    ]
    for sample in samples:
        text, counted = sample["text"], sample["counted"]
        assert len(counted) == text.count("<_bot>")
        for start, end in counted:
            assert text[:start].endswith("<_bot>") and text[:end].endswith("<_end>")
    shown = teleflm("data", "inspect", store).out
    assert "⟦[bold]那 <_end><_end>⟧" in "".join(shown.split("│"))
    assert "\x1b[31m" not in shown and "\\x1b[31m" in shown


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--chat", "gpt"), "--chat gpt: no such file"),
        (("--chat", "tele-flm", "--format", "xml"), "--format xml: choose one of openai, sharegpt"),
        (("--chat", "tele-flm", "--format", "alpaca"), 'line 1: no field "instruction"'),
        (("--chat", "tele-flm", "--text-key", "x"), "--text-key: --chat reads conversations whole"),
        (("--chat", "tele-flm", "--weight-key", "x"), "--weight-key: --chat reads"),
        (("--chat", "tele-flm", "--executor", "r.yaml"), "--executor: --chat reads"),
        (("--format", "openai"), "--format: it is of conversations"),
        (("--chat", "tele-flm", "--held-out", 2), "a held-out share of 2"),
    ],
)
def test_bad_options_are_named(
    folder: Path, tmp_path: Path, teleflm: Command, options: tuple[object, ...], said: str
) -> None:
    outcome = teleflm(*prepare(folder, *options, "--out", tmp_path / "store"))
    assert outcome.code == 2 and said in outcome.err, outcome.err
    assert not (tmp_path / "store").exists()
