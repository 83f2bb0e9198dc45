"""The byte-level BPE tokenizer: training, loading, and the files that transformers reads."""

import functools
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from teleflm.data.find import find_corpus
from teleflm.data.pieces import cut_pieces
from teleflm.data.sources import Document, Reading, iterate_documents
from teleflm.data.unpack import Progress
from teleflm.errors import DataError
from teleflm.files import write_whole

UNK, BOS, EOS, PAD = SPECIAL_TOKENS = ("<unk>", "<s>", "</s>", "<pad>")
# Bytes of a word that merges are learnt from.
LONGEST_WORD = 64
SMALLEST_VOCABULARY = 256 + len(SPECIAL_TOKENS)


class Tokenizer:
    """A byte-level BPE tokenizer that adds nothing to a text: no BOS, no EOS, no clean-up.

    Special strings inside a text are text: no document can smuggle in a `</s>`.
    """

    def __init__(self, definition: str, origin: str) -> None:
        """From the content of a tokenizer.json; `origin` names it in errors (DataError)."""
        self._definition = definition
        try:
            self._content: dict[str, Any] = json.loads(definition)
            self._library = tokenizers.Tokenizer.from_str(definition)
        except Exception as error:  # the library raises nothing narrower
            raise DataError(f"{origin}: damaged tokenizer file ({error})") from error
        if (self._content.get("decoder") or {}).get("type") != "ByteLevel":
            raise DataError(
                f"{origin}: not a byte-level tokenizer, so the bytes of a token are unknown; train "
                "one with: teleflm tokenizer train"
            )
        self._library.encode_special_tokens = True
        # A file may ask for these; a corpus that is cut or padded in silence is a wrong one.
        self._library.no_truncation()
        self._library.no_padding()
        vocabulary = self._library.get_vocab()
        missing = [token for token in SPECIAL_TOKENS if token not in vocabulary]
        if missing:
            raise DataError(f"{origin}: the vocabulary lacks {', '.join(missing)}")
        self.unk_id, self.bos_id, self.eos_id, self.pad_id = (
            vocabulary[token] for token in SPECIAL_TOKENS
        )
        self.vocab_size: int = max(vocabulary.values()) + 1

    @classmethod
    def load(cls, path: Path) -> "Tokenizer":
        """The tokenizer in the folder `path`, which holds a tokenizer.json. Raises DataError."""
        file = Path(path) / "tokenizer.json"
        try:
            definition = file.read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise DataError(
                f"{file}: no such file; train a tokenizer with: "
                f"teleflm tokenizer train --vocab-size N --out {path} PATH…"
            ) from error
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{file}: cannot be read ({error})") from error
        return cls(definition, str(file))

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, without BOS or EOS. Raises DataError for a lone surrogate."""
        try:
            return self._library.encode(text, add_special_tokens=False).ids
        except TypeError as error:
            raise DataError(f"{text!r}: not valid Unicode text (a lone surrogate)") from error

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, on all cores."""
        encodings = self._library.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """The text of `ids`; bytes that are no UTF-8 together become U+FFFD."""
        return self._library.decode(list(ids), skip_special_tokens=skip_special_tokens)

    def byte_lengths(self) -> npt.NDArray[np.int64]:
        """UTF-8 bytes that each token stands for, shape (vocab_size,); 0 for special tokens.

        So the bytes of a run of tokens are a table look-up, also where it cuts a character in two.
        """
        lengths = np.zeros(self.vocab_size, np.int64)
        for token, index in self._library.get_vocab(with_added_tokens=False).items():
            # The byte-level alphabet spells each byte as one character.
            lengths[index] = len(token)
        for index, added in self._library.get_added_tokens_decoder().items():
            lengths[index] = 0 if added.special else len(added.content.encode())
        return lengths

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the definition, whatever its key order and white space."""
        canonical = json.dumps(self._content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def save(self, folder: Path, *, model_max_length: int | None = None) -> None:
        """Write tokenizer.json and tokenizer_config.json, which AutoTokenizer reads, to `folder`.

        A text begins with what a token store has before a document, the `</s>` of the one before:
        no model has ever seen an `<s>`. `model_max_length` is the context in tokens that
        transformers will warn beyond.
        """
        config: dict[str, Any] = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "unk_token": UNK,
            "bos_token": EOS,
            "eos_token": EOS,
            "pad_token": PAD,
            "add_bos_token": False,
            "add_eos_token": False,
            "clean_up_tokenization_spaces": False,
            # Without it transformers would read a `</s>` inside a text as the end of it.
            "split_special_tokens": True,
        }
        if model_max_length is not None:
            config["model_max_length"] = model_max_length
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / "tokenizer.json", self._definition)
        write_whole(folder / "tokenizer_config.json", json.dumps(config, indent=2) + "\n")


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
    tokenizer = Tokenizer(library.to_str(pretty=True), "the trained tokenizer")
    tokenizer.save(out)
    return tokenizer


def _training_texts(documents: Iterable[Document]) -> Iterator[str]:
    for document in documents:
        yield from cut_pieces(document.text)
