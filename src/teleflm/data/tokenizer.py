"""Tokenizers: those of Hugging Face folders, and our own byte-level BPE, which is trained here."""

import functools
import hashlib
import json
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from teleflm.data.find import find_corpus
from teleflm.data.pieces import cut_pieces
from teleflm.data.sources import Document, Reading, iterate_documents
from teleflm.data.tokenizer_files import (
    DEFINITION,
    SETTINGS,
    begin_after_end,
    check_ids,
    copy_tokenizer,
    generation_settings,
    has_tokenizer,
    missing_tokenizer,
    special_tokens,
)
from teleflm.data.unpack import Progress
from teleflm.errors import DataError
from teleflm.files import write_whole

UNK, BOS, EOS, PAD = SPECIAL_TOKENS = ("<unk>", "<s>", "</s>", "<pad>")
# Bytes of a word that merges are learnt from.
LONGEST_WORD = 64
SMALLEST_VOCABULARY = 256 + len(SPECIAL_TOKENS)
# Of a tokenizer that we train.
_SETTINGS = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "unk_token": UNK,
    # A text begins with what a token store has before a document, the `</s>` of the one before: no
    # model has ever seen an `<s>`.
    "bos_token": EOS,
    "eos_token": EOS,
    "pad_token": PAD,
    "add_bos_token": False,
    "add_eos_token": False,
    "clean_up_tokenization_spaces": False,
    # Without it transformers would read a `</s>` inside a text as the end of it.
    "split_special_tokens": True,
}


class Tokenizer:
    """Any tokenizer that a tokenizer.json describes. It adds nothing to a text and cleans nothing.

    Special strings inside a text are text: no document can smuggle in a `</s>`.

    Attributes:
        vocab_size: the largest token id and one.
        eos_id: the token that ends a document, None where none is named.
        end_ids: the tokens that end a text that is being written: that one, and those that
            `generation_config.json` names.
        opening: what the tokenizer itself puts before a text: a BOS, or nothing.
    """

    def __init__(self, folder: Path) -> None:
        """The tokenizer in `folder`, which holds a tokenizer.json; see `load`."""
        self._folder, file = folder, folder / DEFINITION
        self._definition = _read(file)
        try:
            self._content: dict[str, Any] = json.loads(self._definition)
            self._library = tokenizers.Tokenizer.from_str(self._definition)
        except Exception as error:  # the library raises nothing narrower
            raise DataError(f"{file}: damaged tokenizer file ({error})") from error
        self._library.encode_special_tokens = True
        # A file may ask for these; a corpus that is cut or padded in silence is a wrong one.
        self._library.no_truncation()
        self._library.no_padding()
        for token in self._content.get("added_tokens") or []:
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
        eos = special_tokens(folder, self._content).get("eos_token")
        self.eos_id = self._library.token_to_id(eos) if eos is not None else None
        settings = generation_settings(folder)
        said = settings.get("eos_token_id")
        ends = said if isinstance(said, list) else [said]
        if self.eos_id is None:
            self.eos_id = ends[0] if ends else None
        self.end_ids = frozenset(token for token in (self.eos_id, *ends) if token is not None)
        self.opening = self._opening()
        starts = (settings.get("bos_token_id"), self.eos_id)
        self._start = next((token for token in starts if token is not None), None)

    def _spelling(self) -> dict[int, list[int]]:
        """How special strings are written letter by letter, where the model itself would take them
        out of a text: that of a unigram tokenizer knows no difference."""
        model = self._library.model
        special = self._library.get_added_tokens_decoder().items()
        return {
            index: [part.id for letter in token.content for part in model.tokenize(letter)]
            for index, token in special
            if token.special and any(part.id == index for part in model.tokenize(token.content))
        }

    def _as_text(self, ids: list[int]) -> list[int]:
        if not self._spelt or self._spelt.keys().isdisjoint(ids):
            return ids
        return [part for token in ids for part in self._spelt.get(token, [token])]

    def _opening(self) -> list[int]:
        bare, dressed = (
            self._library.encode("a", add_special_tokens=added).ids for added in (False, True)
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

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, on all cores."""
        encodings = self._library.encode_batch_fast(list(texts), add_special_tokens=False)
        return [self._as_text(encoding.ids) for encoding in encodings]

    def encode_prompt(self, text: str) -> list[int]:
        """Token ids to go on from: `text` as it stands at the beginning of a document in training.

        An empty one starts from the BOS id that a model's configs name. Where they name none it
        starts as a document does that follows another one: behind its end.

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

    def absent_ids(self, vocab_size: int) -> list[int]:
        """The ids of a model's vocabulary that are no token here: they pad its embedding."""
        return [index for index in range(vocab_size) if index not in self._ids]

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
        if swallows or not _spells_bytes(self._content, vocabulary):
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
        """SHA-256 of the definition, whatever its key order and white space."""
        canonical = json.dumps(self._content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def save(self, folder: Path) -> None:
        """Write the tokenizer and all that lies with it for text, which AutoTokenizer reads, to
        `folder`.

        It is for models that learn from the documents of a token store: what the files call bos is
        what those have before them. Where the tokenizer puts nothing there, that is the end of the
        document before.
        """
        copy_tokenizer(self._folder, folder)
        # What was loaded, whatever is there by now.
        write_whole(folder / DEFINITION, self._definition)
        if not self.opening and self.eos_id is not None:
            begin_after_end(folder, self._library.id_to_token(self.eos_id), self.eos_id)


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
        and any(step.get("type") == "ByteLevel" for step in steps)
        and not any(
            step.get("add_prefix_space") or step.get("behavior") == "Removed" for step in steps
        )
        and model["type"] == "BPE"
        and not (model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"))
        and all(letter in vocabulary for letter in pre_tokenizers.ByteLevel.alphabet())
    )


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise DataError(missing_tokenizer(file.parent)) from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read ({error})") from error


def train_tokenizer(
    paths: Iterable[Path],
    vocab_size: int,
    out: Path,
    *,
    reading: Reading | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Tokenizer:
    """Train a byte-level BPE tokenizer on the documents under `paths` and save it in `out`.

    The same documents give the same file. All 256 bytes are tokens, so every text has an exact
    encoding and `<unk>` is never needed. Where the corpus has too few repeated pairs for
    `vocab_size`, the tokenizer is smaller: its own `vocab_size` tells.

    Raises DataError for a vocabulary below 260, a bad corpus (see `iterate_documents`), and a
    tokenizer that stands in `out` already unless `force`.
    """
    if vocab_size < SMALLEST_VOCABULARY:
        raise DataError(
            f"a vocabulary of {vocab_size} is too small: the 256 bytes and "
            f"{len(SPECIAL_TOKENS)} special tokens need {SMALLEST_VOCABULARY}"
        )
    if (out / "tokenizer.json").exists() and not force:
        raise DataError(f"{out} has a tokenizer already; choose another folder or use --force")
    library = tokenizers.Tokenizer(models.BPE())
    words = [
        # One token a digit: a number is then written in one way only, place by place, and not
        # in whichever chunks were frequent in the corpus, which is what makes sums learnable.
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    ]
    # Each merge goes through every word that has its pair. A text without spaces is a single word,
    # so learning is from parts of it; the tokenizer itself cuts nothing.
    parts = pre_tokenizers.Split(tokenizers.Regex(f".{{1,{LONGEST_WORD}}}"), "isolated")
    library.pre_tokenizer = pre_tokenizers.Sequence([*words, parts])
    library.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=list(SPECIAL_TOKENS),
        # Sorted, because the library hands out the alphabet in a random order.
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    documents = iterate_documents(find_corpus(paths), reading, progress=progress)
    library.train_from_iterator(_training_texts(documents), trainer)
    library.pre_tokenizer = pre_tokenizers.Sequence(words)
    out.mkdir(parents=True, exist_ok=True)
    write_whole(out / DEFINITION, library.to_str(pretty=True))
    write_whole(out / SETTINGS, json.dumps(_SETTINGS, indent=2) + "\n")
    return Tokenizer.load(out)


def _training_texts(documents: Iterable[Document]) -> Iterator[str]:
    for document in documents:
        yield from cut_pieces(document.text)
