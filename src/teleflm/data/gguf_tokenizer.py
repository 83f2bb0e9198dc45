"""A tokenizer under the keys of a GGUF file, for engines that have their own code for it.

llama.cpp reads tokens, merges and special ids from the file, and the cut into words by a name.
What it would do otherwise than tokenizer.json says is refused here: other ids are another model.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers

from teleflm.data.chat_template import find_template, for_engines
from teleflm.data.pre_tokenizers import ENGINE_NAMES, engine_name
from teleflm.data.tokenizer import Tokenizer
from teleflm.data.tokenizer_files import (
    DEFINITION,
    SENTENCEPIECE,
    SETTINGS,
    has_tokenizer,
    missing_tokenizer,
    read_object,
)
from teleflm.errors import ConfigError

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
_WAY_OUT = "export with --no-tokenizer, and give the engine token ids"
_Value = str | int | bool | list[str] | list[int]


def tokenizer_keys(folder: Path | None, vocab_size: int) -> dict[str, _Value]:
    """The keys, all that begin with `tokenizer.`, of the tokenizer in `folder` for a model with so
    many rows; the rows that are no token are padded.

    Raises:
        ConfigError: llama.cpp would make other ids of a text, with the reason.
        DataError: a damaged file.
    """
    if folder is None or not has_tokenizer(folder):
        if folder is not None and (folder / SENTENCEPIECE).is_file():
            raise ConfigError(f"{missing_tokenizer(folder)}; or {_WAY_OUT}")
        return {"tokenizer.ggml.model": "none"}
    definition, tokenizer = read_object(folder / DEFINITION), Tokenizer.load(folder)
    keys: dict[str, _Value] = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": _cut(folder, definition),
        **_tokens(folder, definition, vocab_size),
        "tokenizer.ggml.merges": [
            merge if isinstance(merge, str) else " ".join(merge)
            for merge in definition["model"]["merges"]
        ],
        **_ids(folder, tokenizer),
    }
    template = find_template(folder)
    if template is None:
        return keys
    return {**keys, "tokenizer.chat_template": for_engines(template)}


def normalisation(folder: Path | None) -> str | None:
    """What llama.cpp leaves out before it cuts a text, None where nothing is."""
    definition = read_object(folder / DEFINITION) if folder is not None else {}
    return "NFC" if (definition.get("normalizer") or {}).get("type") == "NFC" else None


def _refuse(folder: Path, reason: str) -> ConfigError:
    return ConfigError(f"{folder / DEFINITION}: {reason}; {_WAY_OUT}")


def _cut(folder: Path, definition: Mapping[str, Any]) -> str:
    """The name of the cut. Raises ConfigError for what no name stands for."""
    model = definition.get("model", {})
    if model.get("type", "BPE") != "BPE" or model.get("byte_fallback"):
        raise _refuse(folder, "no byte-level BPE, and only that can be written as GGUF")
    for field in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(field):
            raise _refuse(folder, f"{field} = {model[field]!r} is nothing that llama.cpp has")
    normalizer = (definition.get("normalizer") or {}).get("type")
    if normalizer not in (None, "NFC"):
        raise _refuse(folder, f"a text is changed by {normalizer} first, which llama.cpp does not")
    for token in definition.get("added_tokens") or []:
        odd = [flag for flag in ("lstrip", "rstrip", "single_word") if token.get(flag)]
        if odd and not token.get("special"):
            raise _refuse(
                folder, f"token {token['content']!r} has {odd[0]}, which llama.cpp has not"
            )
    cut = tokenizers.Tokenizer.from_file(str(folder / DEFINITION)).pre_tokenizer
    name = engine_name(cut, bool(model.get("ignore_merges")))
    if name is None:
        raise _refuse(
            folder, f"it cuts a text as none of {', '.join(ENGINE_NAMES)}, which llama.cpp knows"
        )
    return name


def _tokens(folder: Path, definition: Mapping[str, Any], vocab_size: int) -> dict[str, _Value]:
    """Every row's text and type, unique: the engine stops at two of the same text."""
    names = {index: token for token, index in definition["model"]["vocab"].items()}
    types = dict.fromkeys(names, NORMAL)
    for token in definition.get("added_tokens") or []:
        names[token["id"]] = token["content"]
        types[token["id"]] = CONTROL if token.get("special") else USER_DEFINED
    texts = [names.get(index, f"[PAD{index}]") for index in range(vocab_size)]
    if len(set(texts)) < len(texts):
        twice = next(text for text in texts if texts.count(text) > 1)
        raise _refuse(folder, f"two tokens are {twice!r}, and llama.cpp stops at that")
    return {
        "tokenizer.ggml.tokens": texts,
        "tokenizer.ggml.token_type": [types.get(index, UNUSED) for index in range(vocab_size)],
    }


def _ids(folder: Path, tokenizer: Tokenizer) -> dict[str, _Value]:
    """The special ids, each said: of what a file leaves out, the engine takes token 11."""
    if tokenizer.eos_id is None:
        raise _refuse(
            folder,
            f"no token is named that ends a text, and llama.cpp would take token 11; name it as "
            f"eos_token in {SETTINGS}",
        )
    start = tokenizer.opening or tokenizer.encode_prompt("")
    if len(start) != 1:
        raise _refuse(folder, f"a text begins with {len(start)} tokens, and llama.cpp knows one")
    others = sorted(tokenizer.end_ids - {tokenizer.eos_id})
    if len(others) > 2:
        raise _refuse(folder, f"{len(others) + 1} tokens end a text, and a GGUF file names three")
    ends = zip(("tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"), others, strict=False)
    return {
        "tokenizer.ggml.bos_token_id": start[0],
        "tokenizer.ggml.eos_token_id": tokenizer.eos_id,
        **dict(ends),
        "tokenizer.ggml.add_bos_token": bool(tokenizer.opening),
        "tokenizer.ggml.add_eos_token": False,
    }
