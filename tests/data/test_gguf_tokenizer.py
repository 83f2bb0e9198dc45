"""A tokenizer as a GGUF file has it: what is said, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers

from teleflm.data.gguf_tokenizer import CONTROL, USER_DEFINED, normalisation, tokenizer_keys
from teleflm.data.pre_tokenizers import PRE_TOKENIZERS, engine_name, pre_tokenizer
from teleflm.data.tokenizer_training import train_tokenizer
from teleflm.errors import ConfigError

SIZE = 364


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "text.txt").write_text("In the beginning was the word 12 34. 天地玄黃。\n" * 20)
    train_tokenizer([tmp_path / "text.txt"], 344, tmp_path / "out")
    return tmp_path / "out"


def change(folder: Path, file: str, **fields: Any) -> None:
    content = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**content, **fields}))


def added(folder: Path, **flags: bool) -> None:
    """A token that is not special, behind the vocabulary."""
    content = json.loads((folder / "tokenizer.json").read_text())
    first = content["added_tokens"][0]
    token = {**first, "id": 344, "content": "<code>", "special": False, **flags}
    change(folder, "tokenizer.json", added_tokens=[*content["added_tokens"], token])


@pytest.mark.parametrize("name", PRE_TOKENIZERS)
def test_a_cut_is_found_by_what_it_does(name: str) -> None:
    assert engine_name(pre_tokenizer(name), ignore_merges=False) == name
    assert engine_name(pre_tokenizer(name), ignore_merges=True) is None


def test_cuts_that_differ_at_a_blank_before_a_digit_are_told_apart() -> None:
    plain = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    assert engine_name(plain, ignore_merges=False) == "gpt-2"
    spaced = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=True)
    assert engine_name(spaced, ignore_merges=False) is None


def test_added_tokens_are_found_in_text_where_they_are_not_special(folder: Path) -> None:
    added(folder)
    keys = tokenizer_keys(folder, SIZE)
    tokens, types = keys["tokenizer.ggml.tokens"], keys["tokenizer.ggml.token_type"]
    assert isinstance(tokens, list) and isinstance(types, list)
    assert tokens[344] == "<code>" and types[344] == USER_DEFINED
    assert types[tokens.index("</s>")] == CONTROL


def test_added_tokens_that_take_spaces_with_them_are_refused(folder: Path) -> None:
    added(folder, lstrip=True)
    with pytest.raises(ConfigError, match="'<code>' has lstrip"):
        tokenizer_keys(folder, SIZE)


def test_a_token_that_is_called_as_a_pad_is_refused(folder: Path) -> None:
    added(folder)
    text = (folder / "tokenizer.json").read_text().replace("<code>", "[PAD350]")
    (folder / "tokenizer.json").write_text(text)
    with pytest.raises(ConfigError, match=r"two tokens are '\[PAD350\]'"):
        tokenizer_keys(folder, SIZE)


def test_every_end_of_a_text_is_named(folder: Path) -> None:
    end = tokenizer_keys(folder, SIZE)["tokenizer.ggml.eos_token_id"]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [end, 9]}))
    assert tokenizer_keys(folder, SIZE)["tokenizer.ggml.eot_token_id"] == 9
    (folder / "generation_config.json").unlink()
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    change(folder, "tokenizer_config.json", **dict.fromkeys(settings))
    with pytest.raises(ConfigError, match="would take token 11"):
        tokenizer_keys(folder, SIZE)


def test_the_template_and_the_normalisation_are_said(folder: Path) -> None:
    assert "tokenizer.chat_template" not in tokenizer_keys(folder, SIZE)
    assert normalisation(folder) is None
    change(folder, "tokenizer_config.json", chat_template="{{ messages }}")
    change(folder, "tokenizer.json", normalizer={"type": "NFC"})
    assert tokenizer_keys(folder, SIZE)["tokenizer.chat_template"] == "{{ messages }}"
    assert normalisation(folder) == "NFC"


def test_other_tokenizers_are_refused_and_none_is_none(folder: Path, tmp_path: Path) -> None:
    assert tokenizer_keys(None, SIZE) == {"tokenizer.ggml.model": "none"}
    content = json.loads((folder / "tokenizer.json").read_text())
    change(folder, "tokenizer.json", model={**content["model"], "byte_fallback": True})
    with pytest.raises(ConfigError, match="no byte-level BPE"):
        tokenizer_keys(folder, SIZE)
    (tmp_path / "tokenizer.model").write_bytes(b"")
    with pytest.raises(ConfigError, match="--no-tokenizer"):
        tokenizer_keys(tmp_path, SIZE)
