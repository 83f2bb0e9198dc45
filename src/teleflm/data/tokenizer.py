"""Tokenizers: our own byte-level BPE, and those of Hugging Face folders."""

import functools
import hashlib
import json
from collections.abc import Container, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tokenizers
from tokenizers import pre_tokenizers

from teleflm.data.special_ids import (
    begin_after_end,
    check_ids,
    copy_for_text,
    end_with,
    generation_config,
    named_ids,
    several,
)
from teleflm.data.tokenizer_files import (
    DEFINITION,
    SETTINGS,
    copy_tokenizer,
    has_tokenizer,
    missing_tokenizer,
    special_tokens,
)
from teleflm.errors import DataError
from teleflm.files import write_whole

# A text that no token goes beyond.
_BEFORE = "a\n"


class Tokenizer:
    """Any tokenizer that a tokenizer.json describes. It adds nothing to a text and cleans nothing.

    Special strings inside a text are text: no document can smuggle in a `</s>`.

    Attributes:
        vocab_size: the largest token id and one.
        eos_id: the token that ends a document, None where none is named.
        end_ids: the tokens that end a text that is being written: that one, and those that
            `generation_config` has.
        opening: what the tokenizer itself puts before a text: a BOS, or nothing.
        definition: what its tokenizer.json says.
    """

    def __init__(self, folder: Path) -> None:
        """The tokenizer in `folder`, which holds a tokenizer.json; see `load`."""
        self._folder, file = folder, folder / DEFINITION
        self._written = _read(file)
        try:
            self.definition: dict[str, Any] = json.loads(self._written)
            self._library = tokenizers.Tokenizer.from_str(self._written)
        except Exception as error:  # the library raises nothing narrower
            raise DataError(f"{file}: damaged tokenizer file ({error})") from error
        self._library.encode_special_tokens = True
        # A file may ask for these: a corpus that is cut, padded or cut up by chance is a wrong one.
        self._library.no_truncation()
        self._library.no_padding()
        if getattr(self._library.model, "dropout", None):
            self._library.model.dropout = None
        for token in self.definition.get("added_tokens") or []:
            name, index = token["content"], self._library.token_to_id(token["content"])
            # The library numbers them on from the vocabulary, whatever the file says.
            if index != token["id"]:
                raise DataError(
                    f"{file}: token {name!r} has id {token['id']} there and {index} once it is "
                    "read, as ids between are missing; give the file that the model came with"
                )
        self._ids = set(self._library.get_vocab().values())
        self._spelt = self._spelling()
        self.vocab_size: int = max(self._ids, default=-1) + 1
        self.opening = self._opening()
        self._name_ids()

    def _name_ids(self) -> None:
        """Find what ends a text, and what begins an empty one."""
        # Not by a model's config: `generate()` of transformers does not look there, and an export
        # has a family's ids in it, which no tokenizer need know.
        generating = generation_config(self._folder)
        ends = several(generating.get("eos_token_id"))
        name = special_tokens(self._folder, self.definition).get("eos_token")
        if name is not None:
            self.eos_id = self._library.token_to_id(name)
            if self.eos_id is None:
                raise DataError(
                    f"{self._folder}: calls {name!r} the token that ends a text (eos_token), and "
                    f"{DEFINITION} has no such token; name the right one in {SETTINGS}, or write "
                    "the tokenizer anew with transformers, which adds it: save_pretrained"
                )
        else:
            self.eos_id = ends[0] if ends else None
        self.end_ids = frozenset(token for token in (self.eos_id, *ends) if token is not None)
        named = named_ids(self._folder)["bos_token_id"]
        starts = (generating.get("bos_token_id"), named, self.eos_id)
        self._start = next((token for token in starts if isinstance(token, int)), None)

    def _spelling(self) -> dict[int, list[int]]:
        """How special strings are written letter by letter, where the model itself would take them
        out of a text: that of a unigram tokenizer knows no difference."""
        model = self._library.model
        special = self._library.get_added_tokens_decoder().items()
        return {
            index: [part.id for letter in token.content for part in model.tokenize(letter)]
            for index, token in special
            # The unknown token stands for characters, and not for its name alone.
            if token.special
            and index != self._unknown()
            and any(part.id == index for part in model.tokenize(token.content))
        }

    def _unknown(self) -> int | None:
        model = self.definition["model"]
        name = model.get("unk_token")
        index: int | None = model.get("unk_id")
        return index if name is None else self._library.token_to_id(name)

    def _as_text(self, ids: list[int]) -> list[int]:
        if not self._spelt or self._spelt.keys().isdisjoint(ids):
            return ids
        return [part for token in ids for part in self._spelt.get(token, [token])]

    def _opening(self) -> list[int]:
        # Any text shows it that has tokens of its own.
        probes = chain("a", (self._library.decode([index]) for index in sorted(self._ids)))
        probe = next((text for text in probes if self.encode(text)), "")
        bare, dressed = (
            self._library.encode(probe, add_special_tokens=added).ids for added in (False, True)
        )
        starts = range(len(dressed) - len(bare) + 1)
        found = (at for at in starts if dressed[at : at + len(bare)] == bare)
        return dressed[: next(found, 0)]

    @classmethod
    def load(cls, path: Path) -> "Tokenizer":
        """The tokenizer in the folder `path`, which holds a tokenizer.json.

        Raises:
            DataError: it is missing or damaged.
        """
        return cls(Path(path))

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, without BOS or EOS. Raises DataError for a lone surrogate."""
        try:
            return self._as_text(self._library.encode(text, add_special_tokens=False).ids)
        except TypeError as error:
            raise DataError(f"{text!r}: not valid Unicode text (a lone surrogate)") from error

    def encode_inside(self, text: str) -> list[int]:
        """Token ids of `text` where it goes on within a document, without a mark at its beginning.

        The same as those of `encode` where nothing `marks_beginnings`.
        """
        before, both = self.encode(_BEFORE), self.encode(_BEFORE + text)
        behind = len(before)
        return both[behind:] if both[:behind] == before else self.encode(text)

    @functools.cached_property
    def marks_beginnings(self) -> bool:
        """Whether a text begins with a token or a space that it hasn't inside a document, as that
        of SentencePiece's pieces does."""
        return self.encode_inside("a") != self.encode("a")

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, on all cores."""
        encodings = self._library.encode_batch_fast(list(texts), add_special_tokens=False)
        return [self._as_text(encoding.ids) for encoding in encodings]

    def encode_prompt(self, text: str) -> list[int]:
        """Token ids to go on from: `text` as it stands at the beginning of a document in training.

        An empty one starts from the BOS that `generation_config` has, else from the one that the
        tokenizer names. Without one it starts as a document does that follows another one: behind
        its end.

        Raises:
            DataError: a lone surrogate, or an empty text where no token begins or ends one.
        """
        ids = [*self.opening, *self.encode(text)]
        if ids:
            return ids
        if self._start is None:
            raise DataError(
                f"{self._folder}: an empty prompt starts from the token that ends a text, and the "
                f"tokenizer names none; give a prompt, or name it as eos_token in {SETTINGS}"
            )
        return [self._start]

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """The text of `ids`; bytes that are no UTF-8 together become U+FFFD."""
        return self._library.decode(list(ids), skip_special_tokens=skip_special_tokens)

    def decode_after(self, ids: Sequence[int], new: Sequence[int]) -> str:
        """The text that `new` adds to that of `ids`, its first space included."""
        return self.decode([*ids, *new])[len(self.decode(ids)) :]

    def id_of(self, token: str) -> int | None:
        """The id of the token that the definition writes so, None where there is none."""
        index: int | None = self._library.token_to_id(token)
        return index

    def absent_ids(self, vocab_size: int) -> list[int]:
        """The ids of a model's vocabulary that are no token here: they pad its embedding."""
        return [index for index in range(vocab_size) if index not in self._ids]

    @functools.cached_property
    def marks(self) -> list[str]:
        """The special strings, which are tokens where a chat template writes them."""
        added = self._library.get_added_tokens_decoder().values()
        return [token.content for token in added if token.special]

    @functools.cached_property
    def special_ids(self) -> frozenset[int]:
        """The tokens of `marks`."""
        added = self._library.get_added_tokens_decoder().items()
        return frozenset(index for index, token in added if token.special)

    @functools.cached_property
    def added_ids(self) -> frozenset[int]:
        """The tokens that were given and not learnt, special or not."""
        return frozenset(self._library.get_added_tokens_decoder())

    @property
    def tokens(self) -> dict[int, str]:
        """How the definition writes each token, by its id; without the special ones."""
        added = self._library.get_added_tokens_decoder()
        vocabulary = self._library.get_vocab().items()
        return {i: token for token, i in vocabulary if i not in added or not added[i].special}

    @functools.cached_property
    def byte_pieces(self) -> frozenset[int]:
        """The tokens that stand for a byte where there is no other; whether some in a row are text
        or U+FFFD, each of them, only the one behind the last decides."""
        if "ByteFallback" not in json.dumps(self.definition.get("decoder")):
            return frozenset()
        ids = map(self._library.token_to_id, (f"<0x{byte:02X}>" for byte in range(256)))
        return frozenset(index for index in ids if index is not None)

    @functools.cached_property
    def byte_lengths(self) -> npt.NDArray[np.int64] | None:
        """UTF-8 bytes of text that each token stands for, shape (vocab_size,); 0 for special ones.

        So the bytes of a run of tokens are a table look-up, also where it cuts a character in two.
        None where they are not: a tokenizer that changes a text before it cuts it, or puts
        something before it, has tokens of other bytes than the text's.
        """
        vocabulary = self._library.get_vocab(with_added_tokens=False)
        added = self._library.get_added_tokens_decoder()
        swallows = any((t.lstrip or t.rstrip) and not t.special for t in added.values())
        if swallows or not _spells_bytes(self.definition, vocabulary):
            return None
        lengths = np.zeros(self.vocab_size, np.int64)
        for token, index in vocabulary.items():
            # The byte-level alphabet spells each byte as one character.
            lengths[index] = len(token)
        for index, extra in added.items():
            lengths[index] = 0 if extra.special else len(extra.content.encode())
        return lengths

    @functools.cached_property
    def fingerprint(self) -> str:
        """That of the definition; see `fingerprint_of`."""
        return fingerprint_of(self.definition)

    def save_over(self, folder: Path) -> None:
        """Exchange the tokenizer in `folder`, that of a model which goes on with this one.

        What the model says of generation stays, and its text ends with this one's ends too. Raises
        DataError for a file that is no JSON object.
        """
        copy_tokenizer(self._folder, folder)
        write_whole(folder / DEFINITION, self._written)
        end_with(folder, sorted(self.end_ids))

    def save(self, folder: Path) -> None:
        """Write the tokenizer and all that lies with it for text, which AutoTokenizer reads, to
        `folder`.

        It is for models that learn from the documents of a token store: what the files call bos is
        what those have before them. Where the tokenizer puts nothing there, that is the end of the
        document before.
        """
        copy_for_text(self._folder, folder)
        # What was loaded, whatever is there by now.
        write_whole(folder / DEFINITION, self._written)
        if not self.opening and self.eos_id is not None:
            begin_after_end(folder, self._library.id_to_token(self.eos_id), self.eos_id)


def fingerprint_of(definition: Mapping[str, Any]) -> str:
    """SHA-256 of what a tokenizer.json says, whatever its key order and white space.

    What it says of truncation and padding, which transformers writes there, is left out.
    """
    unused = ("truncation", "padding")
    content = {k: None if k in unused else v for k, v in definition.items()}
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def check_tokenizer(folder: Path, vocab_size: int) -> None:
    """Refuse what lies in `folder` for text where it is of another vocabulary than the weights.

    Raises:
        DataError: the tokenizer or a special id has no row in an embedding of `vocab_size`, or a
            file is damaged.
    """
    check_ids(folder, vocab_size)
    if has_tokenizer(folder):
        size = Tokenizer.load(folder).vocab_size
        if size > vocab_size:
            raise DataError(
                f"{folder / DEFINITION}: has token ids up to {size - 1:,} and the model a "
                f"vocabulary of {vocab_size:,}; put the tokenizer that the model was trained with "
                "there, or none"
            )


def _spells_bytes(definition: Mapping[str, Any], vocabulary: Container[str]) -> bool:
    """Whether the tokens of any text are its UTF-8 bytes, no more, no fewer and no others."""
    steps = definition.get("pre_tokenizer") or {}
    steps = steps.get("pretokenizers", [steps])
    model = definition["model"]
    return (
        (definition.get("decoder") or {}).get("type") == "ByteLevel"
        and definition.get("normalizer") is None
        and sum(step.get("type") == "ByteLevel" for step in steps) == 1
        and all(_keeps_text(step) for step in steps)
        and model["type"] == "BPE"
        and not (model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"))
        and all(letter in vocabulary for letter in pre_tokenizers.ByteLevel.alphabet())
    )


def _keeps_text(step: Mapping[str, Any]) -> bool:
    """Whether a step before the model cuts a text and changes nothing of it."""
    cuts = ("ByteLevel", "Split", "Digits", "Punctuation", "UnicodeScripts", "FixedLength")
    removes = step.get("behavior") == "Removed"
    return step.get("type") in cuts and not removes and not step.get("add_prefix_space")


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise DataError(missing_tokenizer(file.parent)) from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read ({error})") from error
