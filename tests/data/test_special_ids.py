"""Special ids of Hugging Face folders: as they stand, as transformers has them, none made up."""

import json
from pathlib import Path
from typing import Any

import pytest

from teleflm.data.special_ids import (
    check_ids,
    copy_for_text,
    generation_config,
    special_ids,
)
from teleflm.data.tokenizer import Tokenizer
from teleflm.errors import DataError
from tests.foreign import foreign

NONE = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}


def write(folder: Path, **files: dict[str, Any]) -> None:
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))


def ids(bos: Any, eos: Any, pad: Any) -> dict[str, Any]:
    return {"bos_token_id": bos, "eos_token_id": eos, "pad_token_id": pad}


def test_nothing_is_made_up(tmp_path: Path) -> None:
    assert special_ids(None) == special_ids(tmp_path) == NONE
    assert generation_config(None) == generation_config(tmp_path) == NONE
    copy_for_text(tmp_path, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_each_file_s_ids_stay_its_own_and_travel(tmp_path: Path) -> None:
    write(
        tmp_path,
        config={"model_type": "llama", "bos_token_id": 8, "eos_token_id": 4, "hidden_size": 4},
        generation_config={"eos_token_id": [4, 5], "top_p": 0.9, "transformers_version": "9"},
        tokenizer={"added_tokens": [{"content": "<p>", "id": 9}, {"content": "<e>", "id": 1}]},
        tokenizer_config={"pad_token": "<p>", "eos_token": "<e>"},
    )
    copy_for_text(tmp_path, tmp_path / "copy")
    copy_for_text(tmp_path / "copy", tmp_path / "copy of it")
    for folder in (tmp_path, tmp_path / "copy", tmp_path / "copy of it"):
        # A pad id in a model's config would have transformers train no embedding of that token.
        assert special_ids(folder) == ids(8, 4, None)
        assert generation_config(folder) == {"eos_token_id": [4, 5], "top_p": 0.9}


def test_without_a_file_for_generation_the_config_s_count(tmp_path: Path) -> None:
    named = {"added_tokens": [{"content": "<b>", "id": 3}, {"content": "<e>", "id": 1}]}
    names = {"bos_token": "<b>", "eos_token": "<e>"}
    write(tmp_path, config={"eos_token_id": [4, 5]}, tokenizer=named, tokenizer_config=names)
    assert generation_config(tmp_path) == ids(3, [4, 5], None)
    write(tmp_path, config={"eos_token_id": None})
    assert generation_config(tmp_path) == ids(3, None, None)


@pytest.mark.parametrize("family", ["TeleFLM", "llama", "mistral", "granite", "smollm3"])
def test_a_silent_config_has_its_family_s_ids(tmp_path: Path, family: str) -> None:
    write(tmp_path, config={"model_type": family})
    if family == "TeleFLM":
        expected = ids(1, 2, None)
    else:
        config = pytest.importorskip("transformers").AutoConfig.for_model(family)
        expected = {key: getattr(config, key) for key in NONE}
    assert special_ids(tmp_path) == expected
    # `generate()` has never heard of them.
    assert generation_config(tmp_path) == NONE
    copy_for_text(tmp_path, tmp_path / "copy")
    assert special_ids(tmp_path / "copy") == expected
    assert generation_config(tmp_path / "copy") == NONE
    write(tmp_path, config={"model_type": family, **NONE})
    assert special_ids(tmp_path) == NONE


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "of our own"])
def test_other_families_have_none(tmp_path: Path, family: str) -> None:
    write(tmp_path, config={"model_type": family})
    assert special_ids(tmp_path) == NONE


def test_the_tokenizer_knows_better_than_the_family(tmp_path: Path) -> None:
    write(
        tmp_path,
        config={"model_type": "llama"},
        tokenizer={"added_tokens": [], "model": {"vocab": {"<p>": 9, "<e>": 0}}},
        tokenizer_config={"pad_token": "<p>", "eos_token": "<e>"},
    )
    assert special_ids(tmp_path) == ids(1, 0, None)


def test_a_family_s_id_beyond_the_vocabulary_is_none(tmp_path: Path) -> None:
    write(tmp_path, config={"model_type": "smollm3", "vocab_size": 128_001})
    assert special_ids(tmp_path) == ids(128_000, None, None)


def test_names_of_a_unigram_model_s_pieces(tmp_path: Path) -> None:
    folder = foreign(tmp_path)["unigram"]
    content = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps({**content, "added_tokens": []}))
    assert special_ids(folder)["eos_token_id"] == Tokenizer.load(folder).eos_id == 1


@pytest.mark.parametrize("listed", [False, True])
def test_two_files_of_names_count_as_in_transformers(tmp_path: Path, listed: bool) -> None:
    folder = foreign(tmp_path)["named"]
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings |= {"eos_token": "<|end|>"} | ({"added_tokens_decoder": {}} if listed else {})
    write(folder, tokenizer_config=settings, special_tokens_map={"eos_token": "<|begin|>"})
    theirs = pytest.importorskip("transformers").AutoTokenizer.from_pretrained(folder)
    assert theirs.eos_token == ("<|end|>" if listed else "<|begin|>")
    assert Tokenizer.load(folder).eos_id == theirs.eos_token_id
    assert special_ids(folder)["eos_token_id"] == theirs.eos_token_id


@pytest.mark.parametrize("value", [-1, "2", 1.5, True, [2, None, "3"]])
@pytest.mark.parametrize("file", ["config", "generation_config", "special_ids"])
def test_what_is_no_token_id(tmp_path: Path, value: object, file: str) -> None:
    write(tmp_path, **{file: {"eos_token_id": value}})
    with pytest.raises(DataError, match=rf"/{file}\.json: eos_token_id is .*, not a token id"):
        check_ids(tmp_path, 10)
    read = generation_config if file == "generation_config" else special_ids
    with pytest.raises(DataError, match=rf"/{file}\.json: eos_token_id is .*, not a token id"):
        read(tmp_path)


def test_one_token_begins_a_text(tmp_path: Path) -> None:
    write(tmp_path, config={"bos_token_id": [1, 2]})
    with pytest.raises(DataError, match=r"bos_token_id is \[1, 2\], not a token id"):
        special_ids(tmp_path)


@pytest.mark.parametrize("value", [40, [2, 40]])
@pytest.mark.parametrize("file", ["config", "generation_config", "special_ids"])
def test_ids_outside_the_vocabulary(tmp_path: Path, value: object, file: str) -> None:
    write(tmp_path, **{file: {"eos_token_id": value}})
    check_ids(tmp_path, 41)
    with pytest.raises(DataError, match=rf"{file}\.json: eos_token_id 40 .* vocabulary of 40"):
        check_ids(tmp_path, 40)


def test_a_file_that_is_no_json(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text("{")
    with pytest.raises(DataError, match=r"generation_config\.json: not readable as JSON"):
        special_ids(tmp_path)
