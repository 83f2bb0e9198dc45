"""Why a text ended, and what of its tokens is text."""

from types import SimpleNamespace
from typing import Any

import pytest

from teleflm.data.tokenizer import Tokenizer
from teleflm.errors import ConfigError, DataError
from teleflm.generation import text
from teleflm.generation.text import Writer
from tests import foreign

CONTEXT = 12
DECODER: Any = SimpleNamespace(
    config=SimpleNamespace(vocab_size=330, max_position_embeddings=CONTEXT)
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    library = foreign.byte_level(["</s>"])
    return Tokenizer.load(foreign.write_tokenizer(folder, library, eos_token="</s>"))


def ids(tokenizer: Tokenizer, letters: str) -> list[int]:
    return [tokenizer.encode(letter)[0] for letter in letters]


@pytest.mark.parametrize(
    ("tokens", "most", "expected"),
    [
        ("abc", 3, ("abc", "length")),
        ("abc", 4, ("abc", "context")),
        ("abq", 9, ("ab", "end")),
        ("abx", 9, ("a", "stop")),
        ("abx", 3, ("a", "stop")),
        ("abq", 3, ("ab", "end")),
    ],
)
def test_what_ended_it(
    tokenizer: Tokenizer,
    monkeypatch: pytest.MonkeyPatch,
    tokens: str,
    most: int,
    expected: tuple[str, str],
) -> None:
    """`q` ends a text here, as one of several tokens and one that is spelt; `bx` is a stop."""
    new = ids(tokenizer, tokens)
    monkeypatch.setattr(tokenizer, "end_ids", tokenizer.end_ids | set(ids(tokenizer, "q")))
    shown: list[str] = []

    def written(*arguments: Any, **how: Any) -> list[list[int]]:
        assert how["ends"] == tokenizer.end_ids
        for token in new:
            how["tell"](0, token)
        return [new]

    monkeypatch.setattr(text, "generate", written)
    writer = Writer(DECODER, tokenizer, stops=["bx"])
    (found,) = writer.write([[5] * 9], most, show=lambda place, piece: shown.append(piece))
    assert (found.text, found.finish) == expected
    assert found.tokens == new
    assert "".join(shown) == found.text


def test_bad_input_is_told_before_anything_is_written(tokenizer: Tokenizer) -> None:
    with pytest.raises(ConfigError, match="stop string is empty"):
        Writer(DECODER, tokenizer, stops=["a", ""])
    with pytest.raises(DataError, match="13 tokens and the model's context 12"):
        Writer(DECODER, tokenizer).write([[1], [5] * 13], 4)
