"""A tokenizer made ready for chats: its template, the template's tokens, and what ends a reply."""

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from teleflm.data.chat_template import ChatTemplate, find_template
from teleflm.data.conversation import PROBE, Conversations
from teleflm.data.special_ids import end_with
from teleflm.data.tele_flm_chat import SPARE_TOKENS, TEMPLATES
from teleflm.data.tokenizer import Tokenizer, fingerprint_of
from teleflm.data.tokenizer_files import (
    DEFINITION,
    SETTINGS,
    TEMPLATE,
    read_object,
    special_tokens,
)
from teleflm.errors import DataError
from teleflm.files import write_whole

OWN = "tokenizer"
"""The name of the template that lies with the tokenizer."""

# What a template calls a token, in the ways that released ones do.
_MARK = re.compile(r"<\|[^|<>{}\s'\"]+\|>|<｜[^｜<>{}\s'\"]+｜>|<_\w+>|<(?:start|end)_of_\w+>")
_COMMENT = re.compile(r"\{#.*?#\}", re.DOTALL)


@dataclass(frozen=True)
class Outfit:
    """A tokenizer that is ready for chats.

    Attributes:
        tokenizer: it.
        name: of its template.
        renamed: tokens of the template that took a spare one's place.
        added: tokens of the template that took ids behind the vocabulary.
        stop: the token that ends a reply, None where the template writes none.
    """

    tokenizer: Tokenizer
    name: str
    renamed: Sequence[str]
    added: Sequence[str]
    stop: str | None


def outfit(source: Path, template: str, folder: Path) -> Outfit:
    """Write the tokenizer in `source` to `folder`, ready for chats by a template.

    Args:
        template: a name of `TEMPLATES`, a file, or OWN. Tokens that one of the former two has and
            the tokenizer lacks take the places of spare ones, as ours have, else ids behind its
            vocabulary. OWN is what the model was made with, and is left as it is.

    Raises:
        DataError: an unknown template, one that cannot be applied or whose replies cannot be found,
            one that writes a token that the tokenizer does not name, and a tokenizer to which no
            token can be added.
        MissingExtraError: transformers, which renders templates, is not installed.
    """
    text = _text_of(template, source)
    before = Tokenizer.load(source)
    before.save(folder)
    write_whole(folder / TEMPLATE, text)
    if (folder / SETTINGS).is_file():
        settings = read_object(folder / SETTINGS)
        # A template there is not this one; and transformers would cut its marks into letters.
        for key in ("chat_template", "split_special_tokens"):
            settings.pop(key, None)
        _write(folder / SETTINGS, settings)
    wanted = [] if template == OWN else _marks_of(text, folder)
    missing = [mark for mark in wanted if before.id_of(mark) is None]
    renamed, added = _take_places(folder, before, missing)
    try:
        tokenizer = Tokenizer.load(folder)
    except DataError as error:
        raise DataError(
            f"{source}: lacks {', '.join(missing)}, which the chat template {template} writes, and "
            f"no token can be added to it ({error}); choose another template, or --chat {OWN}"
        ) from error
    talk = Conversations(folder, tokenizer, template)
    _check_named(talk, folder, source)
    if talk.stop is not None:
        end_with(folder, [talk.stop])
        tokenizer = Tokenizer.load(folder)
    stop = None if talk.stop is None else tokenizer.decode([talk.stop], skip_special_tokens=False)
    return Outfit(tokenizer, template, renamed, added, stop)


def _marks_of(text: str, folder: Path) -> list[str]:
    """The tokens that a template names, which lies in `folder`: those that it has as they are, and
    those that it puts together, as of who speaks."""
    found = [_COMMENT.sub("", text)]
    template = ChatTemplate(folder)
    asked, answered = PROBE
    system, tool = ({"role": role, "content": "a"} for role in ("system", "tool"))
    for talk in (PROBE, (system, *PROBE), (asked, answered, tool, answered)):
        # A template may have no form for the latter two; that of the first is told later.
        with suppress(DataError):
            found.append(template.whole(talk))
    return list(dict.fromkeys(mark for part in found for mark in _MARK.findall(part)))


def goes_on_from(tokenizer: Tokenizer, before: Tokenizer) -> bool:
    """Whether `tokenizer` is `before`, or what `outfit` made of it: then all text has the tokens
    that it had, and a model of the one can go on with the other."""
    if tokenizer.fingerprint == before.fingerprint:
        return True
    old = {token["id"]: token["content"] for token in before.definition.get("added_tokens") or []}
    new = tokenizer.definition.get("added_tokens") or []
    names = {
        token["content"]: old[token["id"]] for token in new if old.get(token["id"]) in SPARE_TOKENS
    }
    added = [
        {**token, "content": names.get(token["content"], token["content"])}
        for token in new
        if token["id"] < before.vocab_size
    ]
    model = dict(tokenizer.definition["model"])
    if names:
        model["vocab"] = {names.get(name, name): index for name, index in model["vocab"].items()}
    undone = {**tokenizer.definition, "added_tokens": added, "model": model}
    return fingerprint_of(undone) == before.fingerprint


def _text_of(template: str, source: Path) -> str:
    if template in TEMPLATES:
        return TEMPLATES[template]
    if template == OWN:
        found = find_template(source)
        if found is None:
            raise DataError(
                f"{source}: no chat template lies with the tokenizer; put the model's as "
                f"{TEMPLATE} there, or choose one of {', '.join(TEMPLATES)}"
            )
        return found
    file = Path(template)
    try:
        # A byte-order mark before it would be the first token of each conversation.
        return file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(
            f"--chat {template}: no such file; give a Jinja file, or one of "
            f"{', '.join(TEMPLATES)} and {OWN}"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"--chat {template}: cannot be read ({error})") from error


def _take_places(
    folder: Path, tokenizer: Tokenizer, missing: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Give `missing` tokens the places of spare ones, as many as there are, and the others ids
    behind the vocabulary; which are which."""
    if not missing:
        return [], []
    definition = read_object(folder / DEFINITION)
    tokens: list[dict[str, Any]] = definition.setdefault("added_tokens", [])
    spare = [token for token in tokens if token["content"] in SPARE_TOKENS]
    renamed = list(missing[: len(spare)])
    vocabulary = definition["model"]["vocab"]
    for name, token in zip(renamed, spare, strict=False):
        if token["content"] in vocabulary:  # some trainers have it there as well
            vocabulary[name] = vocabulary.pop(token["content"])
        token["content"] = name
    added = list(missing[len(spare) :])
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    for index, name in enumerate(added, start=tokenizer.vocab_size):
        tokens.append({"id": index, "content": name, **flags, "special": True})
    _write(folder / DEFINITION, definition)
    return renamed, added


def _check_named(talk: Conversations, folder: Path, source: Path) -> None:
    """Raises DataError for a token that the template writes by a name that the tokenizer does not
    give: it would be nothing, and a reply would never end."""
    named = special_tokens(folder, read_object(folder / DEFINITION))
    for name in ("bos_token", "eos_token"):
        if name not in named and talk.template.needs(name, PROBE):
            raise DataError(
                f"{source}: the chat template {talk.template.name} writes {name}, and the "
                f"tokenizer names none; name it in {SETTINGS} there"
            )


def _write(file: Path, content: dict[str, Any]) -> None:
    write_whole(file, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
