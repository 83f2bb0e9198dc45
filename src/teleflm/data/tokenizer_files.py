"""The files of a tokenizer, as they lie beside a model's weights, and the names that they give."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from teleflm.errors import DataError

DEFINITION = "tokenizer.json"
SENTENCEPIECE = "tokenizer.model"
SETTINGS = "tokenizer_config.json"
NAMES = "special_tokens_map.json"
TEMPLATE = "chat_template.jinja"
TOKENIZER_FILES = (
    DEFINITION,
    SENTENCEPIECE,
    SETTINGS,
    NAMES,
    "added_tokens.json",
    TEMPLATE,
)
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
    """Copy the tokenizer's files in `source` to `folder`, which is made where there are any."""
    files = [source / name for name in TOKENIZER_FILES if (source / name).is_file()]
    if files:
        folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        shutil.copyfile(file, folder / file.name)


def special_tokens(folder: Path, definition: Mapping[str, Any]) -> dict[str, str]:
    """What the tokenizer there calls its special tokens: {"eos_token": "</s>", …}.

    A name stands in `tokenizer_config.json`, in older folders in `special_tokens_map.json`, which
    goes before; transformers passes it over where the former lists `added_tokens_decoder`. Where
    neither file is there, tokens with the usual names are taken for what they are called.
    """
    told = [folder / SETTINGS, folder / NAMES]
    if not any(file.is_file() for file in told):
        added = definition.get("added_tokens") or []
        special = {token["content"] for token in added if token.get("special")}
        return {key: name for key, name in _USUAL_NAMES.items() if name in special}
    settings, mapped = map(read_object, told)
    named = settings if "added_tokens_decoder" in settings else {**settings, **mapped}
    found: dict[str, str] = {}
    for key in _USUAL_NAMES:
        token = named.get(key)
        token = token.get("content") if isinstance(token, dict) else token
        if isinstance(token, str):
            found[key] = token
    return found


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
