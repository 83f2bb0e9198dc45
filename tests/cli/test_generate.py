"""teleflm export and teleflm generate, on a model folder."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from teleflm.checkpoint.export import export as export_model
from teleflm.cli.export import export
from teleflm.cli.generate import generate
from teleflm.config.model import ModelConfig
from teleflm.data.tokenizer import Tokenizer
from teleflm.data.tokenizer_training import train_tokenizer
from teleflm.errors import DataError
from teleflm.generation.generate import generate as generate_tokens
from teleflm.model.init import build_model, initial_state
from tests.growing import opened_of

MODEL = ModelConfig.model_validate(
    {
        "vocab_size": 344,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 32,
    }
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("model")
    (root / "text.txt").write_text("A ship sailed past the harbour. 那船过了旧港。\n" * 20)
    train_tokenizer([root / "text.txt"], 344, root / "tokenizer")
    source = opened_of(MODEL, initial_state(MODEL, seed=1), root / "tokenizer")
    export_model(source, root / "model", "granite")
    return root / "model"


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_the_same_text_from_every_export(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], dtype: str
) -> None:
    export(folder, tmp_path / "out", "teleflm", dtype)  # type: ignore[arg-type]
    assert "toy" not in capsys.readouterr().err
    generate(tmp_path / "out", "A ship 那", max_new_tokens=12)
    text = capsys.readouterr().out
    tokenizer = Tokenizer.load(folder)
    ids = tokenizer.encode("A ship 那")
    state = initial_state(MODEL, seed=1)
    if dtype == "bf16":
        state = {name: w.bfloat16() for name, w in state.items()}
    network = build_model(MODEL, state, torch.float32)
    (new,) = generate_tokens(network, [ids], 12, ends=tokenizer.end_ids)
    assert text == tokenizer.decode(ids + new) + "\n"
    assert text.startswith("A ship 那")


def test_the_end_of_the_context_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generate(folder, "A", max_new_tokens=500)
    printed = capsys.readouterr()
    assert "context of 32 tokens" in printed.err
    assert "context" not in printed.out


def test_without_a_tokenizer_there_is_no_text(tmp_path: Path) -> None:
    export_model(opened_of(MODEL, initial_state(MODEL, 1)), tmp_path / "out", "llama")
    with pytest.raises(DataError, match=r"tokenizer\.json: no such file"):
        generate(tmp_path / "out", "A")


def test_an_empty_prompt_starts_where_the_folder_says(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = build_model(MODEL, initial_state(MODEL, seed=1), torch.float32)
    tokenizer = Tokenizer.load(folder)
    texts = {}
    for start in (2, 1):
        shutil.copytree(folder, tmp_path / f"from-{start}")
        ids = {"bos_token_id": start, "eos_token_id": 2}
        (tmp_path / f"from-{start}" / "generation_config.json").write_text(json.dumps(ids))
        generate(tmp_path / f"from-{start}", "", max_new_tokens=12)
        (new,) = generate_tokens(network, [[start]], 12, ends=[2])
        texts[start] = capsys.readouterr().out
        assert texts[start] == tokenizer.decode(new) + "\n"
    assert texts[1] != texts[2]
    generate(folder, "", max_new_tokens=12)
    assert capsys.readouterr().out == texts[2]
