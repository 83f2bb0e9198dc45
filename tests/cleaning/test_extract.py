"""Pages become text, and a page's text is its own."""

import sys

import pytest
from datatrove.data import Document

from teleflm.cleaning.extract import Extract, ExtractSettings
from teleflm.errors import MissingExtraError
from tests.cleaning.bad_text import clean

ENGLISH, OTHER = clean("en")[:2]
PAGE = f"""<html><head><title>Bread</title><script>var x = "never";</script></head><body>
<nav><a href="/">Home</a> <a href="/shop">Shop</a></nav>
<article><h1>Bread</h1><p>{ENGLISH}</p><p>{OTHER}</p>
<ul><li>flour</li><li>water</li></ul></article>
<footer>All rights reserved</footer></body></html>"""
POEM = "床前明月光，疑是地上霜。举头望明月，低头思故乡。"


def page(text: str) -> Document:
    return Document(text=text, id="1", metadata={"format": "html", "language": "en"})


@pytest.fixture(scope="module")
def step() -> Extract:
    return Extract(ExtractSettings())


def test_a_page_becomes_its_text(step: Extract) -> None:
    document = page(PAGE)
    assert step(document) is None
    lines = document.text.splitlines()
    assert ENGLISH in lines and OTHER in lines
    assert "- flour" in lines and "- water" in lines
    assert "never" not in document.text and "rights" not in document.text
    assert document.metadata["format"] == "text"


def test_a_short_chinese_page_is_kept(step: Extract) -> None:
    document = page(f"<!DOCTYPE html><html><body><p>{POEM}</p></body></html>")
    assert step(document) is None
    assert document.text == POEM


def test_the_same_page_is_the_same_however_often_it_came(step: Extract) -> None:
    texts = []
    for _ in range(6):
        document = page(PAGE)
        step(document)
        texts.append(document.text)
    assert len(set(texts)) == 1


def test_other_documents_pass(step: Extract) -> None:
    document = Document(text="<p>not a page</p>", id="1", metadata={"language": "en"})
    assert step(document) is None
    assert document.text == "<p>not a page</p>"


@pytest.mark.parametrize(
    "text", ["", "<html><body><script>x()</script></body></html>", "\x00\x01\x02", "{}"]
)
def test_a_page_without_text(step: Extract, text: str) -> None:
    assert step(page(text)) == "no text"


def test_a_page_that_breaks_the_library_is_one_page(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(text: str, **_: object) -> str:
        raise RecursionError(text)

    monkeypatch.setattr("trafilatura.extract", broken)
    step = Extract(ExtractSettings())
    assert step(page(PAGE)) == "failed"
    assert step.details["raised RecursionError"] == 1


def test_the_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trafilatura", None)
    with pytest.raises(MissingExtraError, match=r"trafilatura.*teleflm\[clean\]"):
        Extract(ExtractSettings())
