"""Cuts by the names that engines know: what they cut, and that a name is of one cut alone."""

import json
from pathlib import Path

import pytest
import tokenizers
from tokenizers import models, pre_tokenizers

from teleflm.data.pre_tokenizers import PRE_TOKENIZERS, name_of, pre_tokenizer

TEXT = "It's 2024,他说(hi)。\n\n  x 12 天地玄黄，宇宙\t\n"
WORDS = {
    "qwen2": [
        *("It", "'s", " ", "2", "0", "2", "4", ",他说", "(hi", ")。\n\n", " ", " x", " ", "1", "2"),
        *(" 天地玄黄", "，宇宙", "\t\n"),
    ],
    "smollm": [
        *("It", "'s", " ", "2", "0", "2", "4", ",", "他说", "(", "hi", ")。", "\n\n ", " x", " "),
        *("1", "2", " 天地玄黄", "，", "宇宙", "\t\n"),
    ],
    "deepseek-v3": [
        *("It", "'s", " ", "202", "4", ",", "他说", "(hi", ")。\n\n", " ", " x", " ", "12", " "),
        *("天地玄黄", "，", "宇宙", "\t\n"),
    ],
}


def cut(name: str) -> list[str]:
    return [TEXT[slice(*span)] for _, span in pre_tokenizer(name).pre_tokenize_str(TEXT)]


@pytest.mark.parametrize("name", PRE_TOKENIZERS)
def test_a_name_cuts_as_its_models_do(name: str) -> None:
    assert cut(name) == WORDS[name]


def definition(steps: pre_tokenizers.PreTokenizer) -> dict[str, object]:
    library = tokenizers.Tokenizer(models.BPE())
    library.pre_tokenizer = steps
    content: dict[str, object] = json.loads(library.to_str())
    return content


def test_the_name_is_read_off_the_cut(tokenizer_dir: Path) -> None:
    for name in PRE_TOKENIZERS:
        assert name_of(definition(pre_tokenizer(name))) == name
    content = json.loads((tokenizer_dir / "tokenizer.json").read_text(encoding="utf-8"))
    assert name_of(content) == "qwen2"
    # Of other programs' files, which say so for offsets alone.
    content["pre_tokenizer"]["pretokenizers"][-1]["trim_offsets"] = False
    assert name_of(content) == "qwen2"
    content["pre_tokenizer"]["pretokenizers"][0]["behavior"] = "MergedWithNext"
    assert name_of(content) is None


def test_another_cut_has_no_name() -> None:
    assert name_of(definition(pre_tokenizers.ByteLevel(add_prefix_space=False))) is None
    assert name_of({"pre_tokenizer": None}) is None
    assert name_of({}) is None
