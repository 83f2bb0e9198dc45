"""Special strings in a chat: a template's are tokens, those that somebody wrote are text."""

import functools
import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import tokenizers

from teleflm.data.tokenizer import Tokenizer
from teleflm.errors import DataError

# The end of the last private-use plane, which no font and no text uses. A content's special strings
# begin with one of the first half instead of their own letter, a template's with one of the second.
_PRIVATE, _HALF = 0x10FF00, 126
_NOTHING = r"(?!)"


class Placed(NamedTuple):
    """Tokens of a text, and where each stands in it: characters `starts[i]` … `ends[i] - 1`."""

    ids: list[int]
    starts: list[int]
    ends: list[int]


class Marks:
    """The special strings of a tokenizer, its marks, in text that a chat template writes.

    `hide` those of what somebody wrote before the template writes it down; `encode` then takes the
    template's for special tokens, and what was hidden for text.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        # Without a post-processor: it would add tokens, and cut spaces out of their places.
        self._definition = {**tokenizer.definition, "post_processor": None}
        self._marks = sorted(filter(None, tokenizer.marks), key=len, reverse=True)
        letters = sorted({mark[0] for mark in self._marks})
        if len(letters) > _HALF:
            raise DataError(
                f"the tokenizer's special tokens begin with {len(letters)} different letters, and "
                f"chats are written with {_HALF} at most"
            )
        self._hidden = {letter: chr(_PRIVATE + i) for i, letter in enumerate(letters)}
        self._shown = str.maketrans({sign: letter for letter, sign in self._hidden.items()})
        self._names = {
            mark: chr(_PRIVATE + _HALF + letters.index(mark[0])) + mark[1:] for mark in self._marks
        }
        self._reserved = re.compile(f"[{chr(_PRIVATE)}-{chr(_PRIVATE + 2 * _HALF - 1)}]")
        # Wherever one begins, inside another one too.
        heads = (f"{re.escape(mark[0])}(?={re.escape(mark[1:])})" for mark in self._marks)
        self._heads = re.compile("|".join(heads) or _NOTHING)
        self._whole = re.compile("|".join(map(re.escape, self._marks)) or _NOTHING)

    def hide(self, text: str) -> str:
        """`text`, of the same length, in which no mark is one.

        Raises:
            DataError: it has a character that stands for a hidden one.
        """
        if found := self._reserved.search(text):
            raise DataError(
                f"a text has the character U+{ord(found[0]):X}, which is private to programs and "
                "stands for others in chats; take it out"
            )
        return self._heads.sub(lambda match: self._hidden[match[0]], text)

    def show(self, text: str) -> str:
        """`text` as it was before `hide`."""
        return text.translate(self._shown)

    def encode(self, text: str) -> Placed:
        """The tokens of a text with hidden marks and a template's, without BOS or EOS.

        Where nothing is hidden they are those that transformers makes of it.

        Raises:
            DataError: a lone surrogate.
        """
        library = self._plain
        if any(sign in text for sign in self._hidden.values()):
            library, text = self._other, self._rename(text)
        try:
            encoding = library.encode(text, add_special_tokens=False)
        except TypeError as error:
            raise DataError(f"{text!r}: not valid Unicode text (a lone surrogate)") from error
        places = encoding.offsets
        return Placed(encoding.ids, [start for start, _ in places], [end for _, end in places])

    def _rename(self, text: str) -> str:
        # Both put one letter for another, so that places stay what they are.
        renamed = self._whole.sub(lambda match: self._names[match[0]], text)
        return renamed.translate(self._shown)

    @functools.cached_property
    def _plain(self) -> tokenizers.Tokenizer:
        return _library(self._definition)

    @functools.cached_property
    def _other(self) -> tokenizers.Tokenizer:
        """The same tokenizer, whose special tokens have names that nobody writes."""
        return _library(_with_names(self._definition, self._names))


def _library(definition: Mapping[str, Any]) -> tokenizers.Tokenizer:
    library = tokenizers.Tokenizer.from_str(json.dumps(definition))
    library.no_truncation()
    library.no_padding()
    if getattr(library.model, "dropout", None):
        library.model.dropout = None
    return library


def _with_names(definition: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    def name(token: str) -> str:
        return names.get(token, token)

    model = dict(definition["model"])
    vocabulary = model["vocab"]
    if isinstance(vocabulary, list):  # of a unigram model: pairs of a piece and its score
        model["vocab"] = [[name(piece), score] for piece, score in vocabulary]
    else:
        model["vocab"] = {name(token): index for token, index in vocabulary.items()}
    if model.get("unk_token") is not None:
        model["unk_token"] = name(model["unk_token"])
    added = [{**token, "content": name(token["content"])} for token in definition["added_tokens"]]
    return {**definition, "model": model, "added_tokens": added}
