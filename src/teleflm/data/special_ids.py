"""The special ids of a model (bos, eos, pad): what its folder says, and what transformers takes.

transformers has them in two places that need not agree. A model's config has those of
`config.json`, and its family's where the file does not name one. `generate()` goes by
`generation_config.json` alone; without that file, by what `config.json` itself names. Both travel
with the model, through import, training, growth and export, each as it is. Nothing is made up: an
id that the source does not have the export does not have either.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from teleflm.data.tokenizer_files import (
    DEFINITION,
    NAMES,
    SETTINGS,
    copy_tokenizer,
    read_object,
    special_tokens,
)
from teleflm.errors import DataError
from teleflm.files import write_whole

CONFIG = "config.json"
GENERATION = "generation_config.json"
# What a checkpoint keeps of its source's config.json.
EXCERPT = "special_ids.json"
SPECIAL_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
_EXCERPT_KEYS = ("model_type", "vocab_size", *SPECIAL_IDS)
_OF_LLAMA = {"bos_token_id": 1, "eos_token_id": 2}
# Of the families' own config classes; of others they have none.
_OF_FAMILIES = {
    "TeleFLM": _OF_LLAMA,
    "llama": _OF_LLAMA,
    "mistral": _OF_LLAMA,
    "granite": _OF_LLAMA,
    "smollm3": {"bos_token_id": 128_000, "eos_token_id": 128_001, "pad_token_id": 128_004},
}

# bos and pad are one id or None, eos may be several.
Ids = dict[str, int | list[int] | None]


def special_ids(folder: Path | None) -> Ids:
    """The ids for the `config.json` of a model that has `folder` for its text.

    Where its source's config leaves one out that the family has, it is the token that the tokenizer
    names so, else the family's. A tokenizer without a model's config has the tokens that it names.

    Raises:
        DataError: a file that is no JSON object, or an id that is no token id.
    """
    if folder is None:
        return dict.fromkeys(SPECIAL_IDS)
    config, named = _model_config(folder), named_ids(folder)
    if not config:
        return {**named, **_ids_of(folder / GENERATION)}
    family = _OF_FAMILIES.get(config.get("model_type", ""), {})
    size = config.get("vocab_size")
    ids: Ids = dict.fromkeys(SPECIAL_IDS)
    for key, usual in family.items():
        has_row = not isinstance(size, int) or usual < size
        ids[key] = usual if named[key] is None and has_row else named[key]
    return {**ids, **_said(config)}


def generation_config(folder: Path | None) -> dict[str, Any]:
    """The `generation_config.json` of a model that has `folder` for its text.

    It is the source's, as it stands. Where there is none it has the ids that the source's config
    names, and of those that it leaves out the tokens that the tokenizer names so.

    Raises:
        DataError: as `special_ids`.
    """
    if folder is None:
        return dict.fromkeys(SPECIAL_IDS)
    file = folder / GENERATION
    if not file.is_file():
        return {**named_ids(folder), **_said(_model_config(folder))}
    _ids_of(file)
    # Which release wrote it, and from what, is not said of what we write.
    written = read_object(file).items()
    return {k: v for k, v in written if k[0] != "_" and k != "transformers_version"}


def named_ids(folder: Path) -> Ids:
    """The ids of the tokens that the tokenizer in `folder` names; None where it names none that it
    has. Raises DataError for a file that is no JSON object."""
    definition = read_object(folder / DEFINITION)
    vocabulary = definition.get("model", {}).get("vocab", {})
    if isinstance(vocabulary, list):  # of a unigram model: pairs of a piece and its score
        vocabulary = {piece: index for index, (piece, _) in enumerate(vocabulary)}
    added = {token["content"]: token["id"] for token in definition.get("added_tokens") or []}
    names = special_tokens(folder, definition)
    id_of = {**vocabulary, **added}
    return {key: id_of.get(names.get(key.removesuffix("_id"))) for key in SPECIAL_IDS}


def copy_for_text(source: Path, folder: Path) -> None:
    """Copy what `source` has for text, the tokenizer's files and the special ids, to `folder`,
    which is made where there is something. Raises DataError as `special_ids`."""
    if source.resolve() == folder.resolve():
        return
    config = _model_config(source)
    excerpt = {key: config[key] for key in _EXCERPT_KEYS if key in config}
    copy_tokenizer(source, folder)
    if excerpt:
        _write_object(folder / EXCERPT, excerpt)
    if (source / GENERATION).is_file():
        _write_object(folder / GENERATION, generation_config(source))


def begin_after_end(folder: Path, eos: str | None, eos_id: int) -> None:
    """Where the files in `folder` call a token bos, have them call the one that ends a text so.

    Raises DataError for a file that is no JSON object.
    """
    names = special_tokens(folder, read_object(folder / DEFINITION))
    if "bos_token" in names and not any((folder / file).is_file() for file in (NAMES, SETTINGS)):
        _write_object(folder / SETTINGS, {"tokenizer_class": "PreTrainedTokenizerFast", **names})
    for file, key, value in (
        (NAMES, "bos_token", eos),
        (SETTINGS, "bos_token", eos),
        (GENERATION, "bos_token_id", eos_id),
    ):
        content = read_object(folder / file)
        if content.get(key) is not None and value is not None and content[key] != value:
            _write_object(folder / file, {**content, key: value})
    if (folder / EXCERPT).is_file() and special_ids(folder)["bos_token_id"] is not None:
        _write_object(folder / EXCERPT, {**read_object(folder / EXCERPT), "bos_token_id": eos_id})


def end_with(folder: Path, tokens: Iterable[int]) -> None:
    """Have the files in `folder` say that a text ends with any of `tokens` too.

    Raises DataError for a file that is no JSON object.
    """
    said = {key: value for key, value in generation_config(folder).items() if value is not None}
    ends = several(said.get("eos_token_id"))
    new = [token for token in tokens if token not in ends]
    if new:
        _write_object(folder / GENERATION, {**said, "eos_token_id": [*ends, *new]})


def several(ids: int | list[int] | None) -> list[int]:
    """The ids that stand under a key that may have one, several or none."""
    return ids if isinstance(ids, list) else [] if ids is None else [ids]


def check_ids(folder: Path, vocab_size: int) -> None:
    """Refuse ids that are no tokens of a model with so many.

    Raises:
        DataError: naming the id and its place.
    """
    for name in (GENERATION, CONFIG, EXCERPT):
        for key, value in _ids_of(folder / name).items():
            for token in several(value):
                if token >= vocab_size:
                    raise DataError(
                        f"{folder / name}: {key} {token} is outside the model's vocabulary of "
                        f"{vocab_size:,}; correct it, or take the line out"
                    )


def _model_config(folder: Path) -> dict[str, Any]:
    """What there is of a model's config; empty with a tokenizer alone. Its ids are token ids."""
    name = CONFIG if (folder / CONFIG).is_file() else EXCERPT
    _ids_of(folder / name)
    return read_object(folder / name)


def _ids_of(file: Path) -> Ids:
    """The special ids in a file. Raises DataError for one that is no token id."""
    ids = _said(read_object(file))
    for key, value in ids.items():
        several = value if isinstance(value, list) and key == "eos_token_id" else [value]
        for token in several:
            if token is not None and (type(token) is not int or token < 0):
                raise DataError(
                    f"{file}: {key} is {value!r}, not a token id; correct it, or take the line out"
                )
    return ids


def _said(content: Mapping[str, Any]) -> Ids:
    return {key: content[key] for key in SPECIAL_IDS if key in content}


def _write_object(file: Path, content: Mapping[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
