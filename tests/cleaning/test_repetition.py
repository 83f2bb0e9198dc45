"""What repeats goes; refrains stay."""

import pytest
from datatrove.data import Document

from teleflm.cleaning.repetition import Repetition, RepetitionSettings
from tests.cleaning.bad_text import clean
from tests.cleaning.prose import CODE, POEMS, PSALM

STEP = Repetition(RepetitionSettings())


def judged(text: str, language: str, step: Repetition = STEP) -> str | None:
    return step(Document(text=text, id="1", metadata={"language": language}))


def test_refrains_stay() -> None:
    assert judged(PSALM, "en") is None
    assert [judged(poem, "zh") for poem in POEMS] == [None] * len(POEMS)
    song = "\n\n".join(
        f"{verse}\nRow, row, row your boat\nGently down the stream" for verse in clean("en")[3:8]
    )
    assert judged(song, "en") is None


@pytest.mark.parametrize("language", ["zh", "en"])
def test_prose_stays(language: str) -> None:
    assert [text for text in clean(language) if judged(text, language)] == []
    assert judged("\n\n".join(clean(language)), language) is None


@pytest.mark.parametrize(
    ("text", "language", "reason"),
    [
        ("buy our great things now\n" * 20, "en", "repeated lines"),
        ("加微信领取红包。\n" * 20, "zh", "repeated lines"),
        ("one line\nand its other\n\n" * 20 + "an end", "en", "repeated lines"),
        (" ".join(f"cheap flights to {c * 4}" for c in "abcdefghijklm"), "en", "one phrase"),
        ("，".join(f"北京搬家公司{c}" for c in "电话价格排名哪家好便宜长途"), "zh", "one phrase"),
        (" ".join(clean("en")[0] for _ in range(4)), "en", "repeated passages"),
        ("".join(clean("zh")[0] for _ in range(4)), "zh", "repeated passages"),
        (CODE + "    return None\n\n\n" * 60, "code", "repeated lines"),
        (CODE + "}\n)\n" * 200, "code", None),
    ],
)
def test_reasons(text: str, language: str, reason: str | None) -> None:
    assert judged(text, language) == reason


def test_paragraphs_are_counted_from_the_third_on() -> None:
    # Lines alone would say nothing: each is half of a paragraph of its own.
    settings = RepetitionSettings(lines=1.0)
    step = Repetition(settings)
    paragraph = clean("en")[2]
    assert judged("\n\n".join([paragraph] * 2 + clean("en")), "en", step) is None
    assert judged("\n\n".join([paragraph] * 9), "en", step) == "repeated paragraphs"


def test_a_short_text_is_no_repetition() -> None:
    assert judged("no no no no no no no", "en") is None
