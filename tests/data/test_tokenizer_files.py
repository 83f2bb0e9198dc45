"""Special ids of Hugging Face folders: read as they stand, and none made up."""

import json
from pathlib import Path
from typing import Any

import pytest

from teleflm.data.tokenizer_files import (
    check_ids,
    copy_tokenizer,
    generation_settings,
    special_ids,
)
from teleflm.errors import DataError


def write(folder: Path, **files: dict[str, Any]) -> None:
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))


def test_nothing_is_made_up(tmp_path: Path) -> None:
    none = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    assert special_ids(None) == special_ids(tmp_path) == none
    copy_tokenizer(tmp_path, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_generation_config_first_then_config_then_names(tmp_path: Path) -> None:
    write(
        tmp_path,
        config={"bos_token_id": 8, "eos_token_id": 4, "pad_token_id": None},
        generation_config={"eos_token_id": [4, 5], "top_p": 0.9, "transformers_version": "9"},
        tokenizer={"added_tokens": [{"content": "<p>", "id": 9}, {"content": "<e>", "id": 1}]},
        tokenizer_config={"pad_token": "<p>", "eos_token": "<e>"},
    )
    ids = {"bos_token_id": 8, "eos_token_id": [4, 5], "pad_token_id": 9}
    assert special_ids(tmp_path) == ids
    assert generation_settings(tmp_path) == {
        "eos_token_id": [4, 5],
        "top_p": 0.9,
        "bos_token_id": 8,
    }
    copy_tokenizer(tmp_path, tmp_path / "copy")
    assert special_ids(tmp_path / "copy") == ids
    assert generation_settings(tmp_path / "copy") == generation_settings(tmp_path)


@pytest.mark.parametrize("value", [-1, "2", 1.5, True, [2, None, "3"]])
@pytest.mark.parametrize("file", ["config", "generation_config"])
def test_what_is_no_token_id(tmp_path: Path, value: object, file: str) -> None:
    write(tmp_path, **{file: {"eos_token_id": value}})
    with pytest.raises(DataError, match=rf"/{file}\.json: eos_token_id is .*, not a token id"):
        special_ids(tmp_path)


def test_one_token_begins_a_text(tmp_path: Path) -> None:
    write(tmp_path, config={"bos_token_id": [1, 2]})
    with pytest.raises(DataError, match=r"bos_token_id is \[1, 2\], not a token id"):
        special_ids(tmp_path)


@pytest.mark.parametrize("value", [40, [2, 40]])
def test_ids_outside_the_vocabulary(tmp_path: Path, value: object) -> None:
    write(tmp_path, generation_config={"eos_token_id": value})
    check_ids(tmp_path, 41)
    with pytest.raises(DataError, match=r"config\.json: eos_token_id 40 .* vocabulary of 40"):
        check_ids(tmp_path, 40)


def test_a_file_that_is_no_json(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text("{")
    with pytest.raises(DataError, match=r"generation_config\.json: not readable as JSON"):
        special_ids(tmp_path)
