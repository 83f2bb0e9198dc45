"""What lies beside a model's weights for its text: the tokenizer's files and the special ids.

They travel with the model, through import, training, growth and export, and nothing is made up on
the way: an id that the source does not name stays unnamed.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from teleflm.errors import DataError
from teleflm.files import write_whole

DEFINITION = "tokenizer.json"
SENTENCEPIECE = "tokenizer.model"
SETTINGS = "tokenizer_config.json"
NAMES = "special_tokens_map.json"
GENERATION = "generation_config.json"
TOKENIZER_FILES = (
    DEFINITION,
    SENTENCEPIECE,
    SETTINGS,
    NAMES,
    "added_tokens.json",
    "chat_template.jinja",
)
SPECIAL_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
# What tokens are for, by their names, where no file says it: as in Tele-FLM and Llama.
_USUAL_NAMES = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}


def has_tokenizer(folder: Path | None) -> bool:
    """Whether text can be read and written with what lies there."""
    return folder is not None and (folder / DEFINITION).is_file()


def missing_tokenizer(folder: Path) -> str:
    """What to say of a folder without a tokenizer.json, and the way out."""
    file = folder / DEFINITION
    if not (folder / SENTENCEPIECE).is_file():
        return (
            f"{file}: no such file; put the one that the model was trained with there, or "
            f"train a tokenizer with: teleflm tokenizer train --vocab-size N --out {folder} PATH…"
        )
    return (
        f"{file}: no such file, and {SENTENCEPIECE} beside it cannot be read as it is; convert it "
        'once with: pip install transformers sentencepiece protobuf && python -c "from '
        f"transformers import AutoTokenizer as A; A.from_pretrained({str(folder)!r})"
        f'.save_pretrained({str(folder)!r})"'
    )


def copy_tokenizer(source: Path, folder: Path) -> None:
    """Copy what `source` has for text to `folder`, which is made where there is something.

    Of a Hugging Face folder that is its tokenizer's files and, as `generation_config.json`, what
    `generation_settings` says. Raises DataError as that does.
    """
    if source.resolve() == folder.resolve():
        return
    files = [source / name for name in TOKENIZER_FILES if (source / name).is_file()]
    settings = generation_settings(source)
    if files or settings:
        folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        shutil.copyfile(file, folder / file.name)
    if settings:
        _write_object(folder / GENERATION, settings)


def begin_after_end(folder: Path, eos: str | None, eos_id: int) -> None:
    """Where the files in `folder` call a token bos, have them call the one that ends a text so.

    Raises DataError for a file that is no JSON object.
    """
    told = {NAMES: ("bos_token", eos), SETTINGS: ("bos_token", eos)}
    names = special_tokens(folder, read_object(folder / DEFINITION))
    if "bos_token" in names and not any((folder / file).is_file() for file in told):
        _write_object(folder / SETTINGS, {"tokenizer_class": "PreTrainedTokenizerFast", **names})
    for file, (key, value) in {**told, GENERATION: ("bos_token_id", eos_id)}.items():
        content = read_object(folder / file)
        if content.get(key) is not None and value is not None and content[key] != value:
            _write_object(folder / file, {**content, key: value})


def generation_settings(folder: Path) -> dict[str, Any]:
    """What `folder` says of generation: its `generation_config.json`, and the special ids that only
    its `config.json` names; empty where it says nothing.

    Raises:
        DataError: a file that is no JSON object, or an id that is no token id.
    """
    written = read_object(folder / GENERATION)
    # Which release wrote it, and from what, is not said of what we write.
    settings = {k: v for k, v in written.items() if k[0] != "_" and k != "transformers_version"}
    config = read_object(folder / "config.json")
    for key in SPECIAL_IDS:
        for file, content in ((GENERATION, settings), ("config.json", config)):
            _check_id(content.get(key), key, folder / file)
        if settings.get(key) is None and config.get(key) is not None:
            settings[key] = config[key]
    return settings


def special_ids(folder: Path | None) -> dict[str, int | list[int] | None]:
    """bos, eos (one id or several) and pad ids of a model that has `folder` for its text: those
    that it says, else of the tokens that its tokenizer names so; None where there is none.

    Raises:
        DataError: as `generation_settings`.
    """
    if folder is None:
        return dict.fromkeys(SPECIAL_IDS)
    said = generation_settings(folder)
    definition = read_object(folder / DEFINITION)
    id_of = {token["content"]: token["id"] for token in definition.get("added_tokens", [])}
    names = special_tokens(folder, definition)
    ids = {key: said.get(key) for key in SPECIAL_IDS}
    for key in SPECIAL_IDS:
        if ids[key] is None:
            ids[key] = id_of.get(names.get(key.removesuffix("_id")))
    return ids


def special_tokens(folder: Path, definition: Mapping[str, Any]) -> dict[str, str]:
    """What the tokenizer there calls its special tokens: {"eos_token": "</s>", …}.

    A name stands in `tokenizer_config.json`, in older folders in `special_tokens_map.json`; where
    neither file is there, tokens with the usual names are taken for what they are called.
    """
    told = [folder / NAMES, folder / SETTINGS]
    if not any(file.is_file() for file in told):
        special = {t["content"] for t in definition.get("added_tokens", []) if t.get("special")}
        return {key: name for key, name in _USUAL_NAMES.items() if name in special}
    found: dict[str, str] = {}
    for content in map(read_object, told):
        for key in _USUAL_NAMES:
            token = content.get(key)
            token = token.get("content") if isinstance(token, dict) else token
            if isinstance(token, str):
                found[key] = token
    return found


def check_ids(folder: Path, vocab_size: int) -> None:
    """Refuse ids that are no tokens of a model with so many.

    Raises:
        DataError: naming the id and its place.
    """
    for key in SPECIAL_IDS:
        for file in (GENERATION, "config.json"):
            value = read_object(folder / file).get(key)
            for token in value if isinstance(value, list) else [value]:
                if isinstance(token, int) and token >= vocab_size:
                    raise DataError(
                        f"{folder / file}: {key} {token} is outside the model's vocabulary of "
                        f"{vocab_size:,}; correct it, or take the line out"
                    )


def _check_id(value: Any, key: str, file: Path) -> None:
    several = value if isinstance(value, list) and key == "eos_token_id" else [value]
    for token in several:
        if token is not None and (type(token) is not int or token < 0):
            raise DataError(
                f"{file}: {key} is {value!r}, not a token id; correct it, or take the line out"
            )


def _write_object(file: Path, content: Mapping[str, Any]) -> None:
    write_whole(file, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def read_object(file: Path) -> dict[str, Any]:
    """The object in a JSON file, empty where there is no file."""
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: not readable as JSON ({error}); restore the file") from None
    if not isinstance(data, dict):
        raise DataError(f"{file}: expected a JSON object; restore the file")
    return data
