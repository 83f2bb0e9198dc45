"""teleflm generate on a file of prompts, and what it refuses."""

import json
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from teleflm.checkpoint.export import export as export_model
from teleflm.cli.generate import generate
from teleflm.config.model import ModelConfig
from teleflm.data.tokenizer import Tokenizer
from teleflm.data.tokenizer_training import train_tokenizer
from teleflm.errors import StoppedError
from teleflm.generation import text
from teleflm.model.init import initial_state
from tests.conftest import Command
from tests.growing import opened_of

MODEL = ModelConfig.model_validate(
    {
        "vocab_size": 344,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 48,
        "matrix_init_std": 0.5,
    }
)
PROMPTS = ["A ship", "那船", "", "past the harbour of A ship sailed", "A ship", "s"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("model")
    (root / "text.txt").write_text("A ship sailed past the harbour. 那船过了旧港。\n" * 20)
    train_tokenizer([root / "text.txt"], 344, root / "tokenizer")
    export_model(
        opened_of(MODEL, initial_state(MODEL, 1), root / "tokenizer"), root / "model", "granite"
    )
    return root / "model"


def prompts_file(path: Path, lines: list[Any]) -> Path:
    file = path / "prompts.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def written(folder: Path, tmp_path: Path, **how: Any) -> list[dict[str, Any]]:
    lines = [{"id": number, "prompt": prompt} for number, prompt in enumerate(PROMPTS)]
    out = tmp_path / "out.jsonl"
    generate(folder, prompts=prompts_file(tmp_path, lines), max_new_tokens=10, out=out, **how)
    records = [json.loads(line) for line in out.read_text().splitlines()]
    out.unlink()
    return records


@pytest.mark.parametrize("sampled", [False, True])
def test_records_are_those_of_the_file_with_the_text_of_each_alone(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], sampled: bool
) -> None:
    how: dict[str, Any] = {"temperature": 0.9, "top_p": 0.9, "seed": 4} if sampled else {}
    records = written(folder, tmp_path, batch_size=4, **how)
    assert records == written(folder, tmp_path, batch_size=1, **how)
    assert [(record["id"], record["prompt"]) for record in records] == list(enumerate(PROMPTS))
    tokenizer = Tokenizer.load(folder)
    for record in records:
        prompt = tokenizer.encode_prompt(record["prompt"])
        assert record["finish"] in ("length", "end")
        shown = [token for token in record["tokens"] if token not in tokenizer.end_ids]
        assert record["text"] == tokenizer.decode_after(prompt, shown)
    # The first one is what PROMPT by itself gives; the same prompt once more is another draw.
    capsys.readouterr()
    generate(folder, PROMPTS[0], max_new_tokens=10, **how)
    assert capsys.readouterr().out == PROMPTS[0] + records[0]["text"] + "\n"
    assert (records[0]["tokens"] == records[4]["tokens"]) != sampled


def test_a_stop_string_ends_a_text(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (free, *_) = written(folder, tmp_path)
    stop = free["text"][3:5]
    at = free["text"].index(stop)
    generate(folder, PROMPTS[0], max_new_tokens=10, stop=["never written", stop])
    assert capsys.readouterr().out == PROMPTS[0] + free["text"][:at] + "\n"
    (stopped, *_) = written(folder, tmp_path, stop=[stop])
    assert (stopped["text"], stopped["finish"]) == (free["text"][:at], "stop")
    assert len(stopped["tokens"]) < len(free["tokens"])


def test_without_a_place_to_go_records_are_printed(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = prompts_file(tmp_path, [{"prompt": "A"}, {"prompt": "那"}])
    generate(folder, prompts=file, max_new_tokens=60)
    printed = capsys.readouterr()
    assert [json.loads(line)["finish"] for line in printed.out.splitlines()] == ["context"] * 2
    assert "writing: 2 of 2 texts" in printed.err


def interrupted() -> None:
    # As Python hears SIGINT, which a background shell has children ignore.
    raise KeyboardInterrupt


def terminated() -> None:
    signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize(
    ("stop", "number"), [(interrupted, signal.SIGINT), (terminated, signal.SIGTERM)]
)
def test_what_is_done_is_kept_when_the_rest_is_stopped(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stop: Callable[[], None],
    number: signal.Signals,
) -> None:
    expected = written(folder, tmp_path)
    real, calls = text.generate, iter(range(9))

    def stopped(*arguments: Any, **named: Any) -> list[list[int]]:
        if next(calls) == 2:
            stop()
        return real(*arguments, **named)

    monkeypatch.setattr(text, "generate", stopped)
    lines = [{"id": number, "prompt": prompt} for number, prompt in enumerate(PROMPTS)]
    file, out = prompts_file(tmp_path, lines), tmp_path / "kept.jsonl"
    with pytest.raises(StoppedError, match=r"4 of .* wants another --out") as stopping:
        generate(folder, prompts=file, max_new_tokens=10, batch_size=2, out=out)
    assert stopping.value.exit_code == 128 + number
    kept = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(kept) == 4
    # In the order of the file, whatever the order of their lengths.
    assert kept == [expected[record["id"]] for record in kept]
    assert [record["id"] for record in kept] == sorted(record["id"] for record in kept)


@pytest.mark.parametrize("weights", ["bf16", "int8"])
def test_weights_in_fewer_bits_write_too(folder: Path, tmp_path: Path, weights: str) -> None:
    if weights == "int8" and "fbgemm" not in torch.backends.quantized.supported_engines:
        pytest.skip("PyTorch without FBGEMM")
    records = written(folder, tmp_path, weights=weights)
    assert len(records) == len(PROMPTS) and all(record["tokens"] for record in records)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give either PROMPT or --prompts"),
        (["A", "--prompts", "x.jsonl"], "give either PROMPT or --prompts"),
        (["A", "--out", "x.jsonl"], "--out is for the records of --prompts"),
        (["A", "--stop", ""], "a stop string is empty"),
        (["A", "--top-k", "0", "--temperature", "1"], "top-k 0: it has to be at least 1"),
        (["A", "--top-p", "0", "--temperature", "1"], "top-p 0.0: it has to be above 0"),
        (["A", "--min-p", "2", "--temperature", "1"], "min-p 2.0: it has to be from 0 to 1"),
        (["A", "--temperature", "-1"], "temperature -1.0: it has to be at least 0"),
        (["A", "--repetition-penalty", "0"], "--repetition-penalty 0.0"),
        (["A", "--top-p", "0.9"], "at temperature 0 nothing is drawn; give a --temperature"),
        (["A", "--device", "abacus"], "device 'abacus': it has to be auto, cpu"),
        (["A", "--device", "cuda:99"], "GPUs here; take --device cpu"),
        (["A", "--weights", "int3"], "int3"),
        (["A" * 300], "tokens and the model's context 48; shorten it"),
    ],
)
def test_bad_options(folder: Path, teleflm: Command, arguments: list[str], message: str) -> None:
    done = teleflm("generate", str(folder), *arguments)
    assert done.code == 2
    assert message in done.err and done.out == ""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"prompt": "A"}\n{"prompt": \n', "line 2: not valid JSON"),
        ('\n{"prompt": "A"}\n["A"]\n', 'line 3: no text under "prompt"'),
        ('{"prompt": 5}\n', 'line 1: no text under "prompt"'),
        ('{"prompt": "A", "text": "B"}\n', 'line 1: has a field "text", which'),
        ('{"prompt": "A"}\n{"prompt": "' + "A" * 300 + '"}\n', "line 2: the prompt has"),
        ('{"prompt": "\\ud800"}\n', "line 1: .*not valid Unicode"),
        ("\n", "holds no prompts"),
    ],
)
def test_bad_files_are_told_by_line_before_anything_is_written(
    folder: Path, tmp_path: Path, teleflm: Command, content: str, message: str
) -> None:
    file, out = tmp_path / "prompts.jsonl", tmp_path / "out.jsonl"
    file.write_text(content)
    done = teleflm("generate", str(folder), "--prompts", str(file), "--out", str(out))
    assert done.code == 2
    assert re.search(message, done.err)
    assert not out.exists()


def test_a_file_that_is_there_stays_and_one_that_is_not_is_named(
    folder: Path, tmp_path: Path, teleflm: Command
) -> None:
    file = prompts_file(tmp_path, [{"prompt": "A"}])
    done = teleflm("generate", str(folder), "--prompts", str(file), "--out", str(file))
    assert done.code == 2 and "is there already; remove it" in done.err
    assert json.loads(file.read_text()) == {"prompt": "A"}
    done = teleflm("generate", str(folder), "--prompts", str(tmp_path / "none.jsonl"))
    assert done.code == 2 and "none.jsonl" in done.err


def test_half_a_surrogate_in_another_field_stays(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = {"prompt": "A ship", "note": "\ud800 那船"}
    generate(folder, prompts=prompts_file(tmp_path, [line]), max_new_tokens=2)
    found = capsys.readouterr().out
    assert json.loads(found)["note"] == line["note"] and "那船" in found
    generate(
        folder,
        prompts=prompts_file(tmp_path, [line]),
        max_new_tokens=2,
        out=tmp_path / "out.jsonl",
    )
    assert (tmp_path / "out.jsonl").read_text() == found
