"""What the step says it changes, and nothing else."""

import ast

import pytest
from datatrove.data import Document
from hypothesis import given
from hypothesis import strategies as st

from teleflm.cleaning.normalise import Normalise, NormaliseSettings
from tests.cleaning.prose import CODE, POEMS, PSALM


def normalised(text: str, language: str = "en") -> str:
    document = Document(text=text, id="1", metadata={"language": language})
    Normalise(NormaliseSettings())(document)
    return document.text


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a\r\nb\rc\u2028d\x0be\x0cf\x85g", "a\nb\nc\nd\ne\nf\ng"),
        ("cafe\u0301 \ufeff\u200bna\xadive\x00", "café naive"),
        ("a\xa0b\u2009c  d", "a b c  d"),
        ("\u3000\u3000第一段。 \t\n\u3000\u3000第二段。\u3000", "第一段。\n第二段。"),
        ("\n\na\n\n\n\nb\n\n", "a\n\nb"),
        ("    indented\n\tcode", "    indented\n\tcode"),
        ("１２３，ＡＢＣ ﬁ ①", "１２３，ＡＢＣ ﬁ ①"),
        ("می\u200cخواهم 👩\u200d💻", "می\u200cخواهم 👩\u200d💻"),
        ("a\ud800b", "ab"),
    ],
)
def test_prose(before: str, after: str) -> None:
    assert normalised(before) == after


@pytest.mark.parametrize("text", [*POEMS, PSALM])
def test_clean_prose_is_left_alone(text: str) -> None:
    assert normalised(text) == text


def test_code_compiles_to_the_same() -> None:
    source = CODE.replace("Hello", "e\u0301\xa0\u200b\x0c") + "\n\n\n\n\nx = 1   \n"
    assert normalised(source, "code") == source
    windows = "\ufeff" + CODE.replace("\n", "\r\n")
    assert ast.dump(ast.parse(normalised(windows, "code"))) == ast.dump(ast.parse(CODE))


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=60))
def test_twice_is_once(text: str) -> None:
    once = normalised(text)
    assert normalised(once) == once


def test_reasons_and_counts() -> None:
    step = Normalise(NormaliseSettings())
    assert step(Document(text="\u200b \n\x00", id="1")) == "empty"
    assert step(Document(text="ab\ufffd" * 20, id="2")) == "damaged"
    assert step(Document(text="a" * 400 + "\ufffd", id="3")) is None
    assert step.details["replacement characters"] == 21
    assert step.details["zero-width characters"] == step.details["control characters"] == 1
