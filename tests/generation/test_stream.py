"""Text as it comes is the text, in whole characters and without any of a stop string."""

import random

import pytest

from teleflm.data.tokenizer import Tokenizer
from teleflm.generation.stream import TextStream
from tests import foreign

TEXT = "The ship 那船 sailed past 🚢🚢 the harbour,  twice.\n\nAnd 那 was é seen — no more: 7️⃣ 那"
KINDS = {
    "bytes": lambda: foreign.byte_level(["</s>"]),
    "pieces": foreign.pieces,
    "unigram": foreign.unigram,
}


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    return Tokenizer.load(foreign.write_tokenizer(folder, KINDS[request.param](), eos_token="</s>"))


@pytest.fixture(scope="module")
def of_bytes(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("bytes")
    return Tokenizer.load(foreign.write_tokenizer(folder, KINDS["bytes"](), eos_token="</s>"))


def pieces_of(stream: TextStream, tokens: list[int]) -> list[str]:
    found = []
    for token in tokens:
        found.append(stream.push(token))
        if stream.is_stopped:
            break
    return [*found, stream.finish()]


def test_pieces_are_the_text_in_whole_characters(tokenizer: Tokenizer) -> None:
    prompt, tokens = tokenizer.encode_prompt("A ship, "), tokenizer.encode_inside(TEXT * 4)
    stream = TextStream(tokenizer, prompt, [])
    found = pieces_of(stream, tokens)
    assert "".join(found) == stream.text == tokenizer.decode_after(prompt, tokens)
    assert not any("\ufffd" in piece for piece in found)
    # As soon as it is there, and not at the end.
    assert sum(bool(piece) for piece in found) > len(tokens) / 4
    assert found[-1] == ""


def test_what_is_no_character_is_shown_in_the_end(of_bytes: Tokenizer) -> None:
    draw = random.Random(3)
    for _ in range(50):
        tokens = [draw.randrange(1, 330) for _ in range(40)]
        stream = TextStream(of_bytes, tokens[:5], [])
        pieces_of(stream, tokens[5:])
        start = TextStream(of_bytes, [], [])
        whole = pieces_of(start, tokens)
        assert start.text == "".join(whole) == of_bytes.decode(tokens)


@pytest.mark.parametrize(
    "stops",
    [
        ["past"],
        ["船 s"],
        ["🚢🚢 t"],
        ["harbour, no", "twice.\n\nAnd", "twice.\n\nB", "twice."],
        ["more than", "那 ship"],
        ["那"],
        ["T"],
    ],
    ids=str,
)
def test_no_part_of_a_stop_string_is_shown(tokenizer: Tokenizer, stops: list[str]) -> None:
    prompt, tokens = tokenizer.encode_prompt("A ship\n"), tokenizer.encode_inside(TEXT)
    whole = tokenizer.decode_after(prompt, tokens)
    found = [whole.index(stop) for stop in stops if stop in whole]
    expected = whole[: min(found, default=None)]
    stream = TextStream(tokenizer, prompt, stops)
    shown = ""
    for piece in pieces_of(stream, tokens):
        shown += piece
        assert expected.startswith(shown)
    assert shown == stream.text == expected
    assert stream.is_stopped == bool(found)


def test_a_stop_string_that_is_all_that_is_held_back(of_bytes: Tokenizer) -> None:
    """Letter by letter, beginnings within beginnings."""
    letters = {letter: of_bytes.encode(letter)[0] for letter in "ab"}
    for text, expected in (("aaab", "a"), ("aaaa", "aaaa"), ("abaab", "ab"), ("aa", "aa")):
        stream = TextStream(of_bytes, [], ["aab"])
        assert "".join(pieces_of(stream, [letters[letter] for letter in text])) == expected
    stream = TextStream(of_bytes, [], ["aab"])
    assert [stream.push(letters[letter]) for letter in "aaab"] == ["", "", "a", ""]
