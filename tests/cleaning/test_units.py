"""Units are words and characters; hashes hang on them alone."""

import random
import subprocess
import sys
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from teleflm.cleaning import units
from teleflm.cleaning.units import find_units, ngram_hashes, span_hashes, unit_hashes

PIECES = [
    *"aB9 .,\n'’-é中文かกﬁßＡ½…한",
    "\u0301",
    "\u200b",
    "\u00ad",
    "\U00020000",
    "\U0001f600",
    "ﾊﾟ",
]
texts = st.text(st.sampled_from("".join(PIECES)), max_size=40) | st.text(max_size=20)


def listed(text: str) -> list[str]:
    found = find_units([text])
    letters = [chr(code) for code in found.letters.tolist()]
    return ["".join(letters[b:e]) for b, e in zip(found.begins, found.ends, strict=True)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don't stop, it’s 3.5 o'clock!", ["dont", "stop", "its", "3", "5", "oclock"]),
        ("第3回，那船Go了", ["第", "3", "回", "那", "船", "go", "了"]),
        ("ＦＵＬＬ　ｗｉｄｔｈ，ﬁne", ["full", "width", "fine"]),
        ("cafe\u0301 café", ["café", "café"]),
        ("co\u00adop a\u200bb\ufeff", ["coop", "ab"]),
        ("한국어 텍스트", ["한국어", "텍스트"]),
        (unicodedata.normalize("NFD", "한국어"), ["한국어"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("ひらカナ々、한", ["ひ", "ら", "カ", "ナ", "々", "한"]),
        ("\U00020000\U0001f600x", ["\U00020000", "x"]),
        ("snake_case x==1…", ["snake", "case", "x", "1"]),
        ("", []),
        (" \n!", []),
    ],
)
def test_what_a_unit_is(text: str, expected: list[str]) -> None:
    assert listed(text) == expected


@given(st.lists(texts, max_size=6))
def test_units_of_many_texts_are_those_of_each(many: list[str]) -> None:
    hashes, starts = unit_hashes(many)
    assert len(starts) == len(many) + 1
    for text, first, behind in zip(many, starts, starts[1:], strict=False):
        alone, bounds = unit_hashes([text])
        assert hashes[first:behind].tolist() == alone.tolist()
        assert bounds.tolist() == [0, len(alone)]
        assert len(alone) == len(listed(text))


@given(texts)
def test_normal_forms_case_and_gaps_change_nothing(text: str) -> None:
    expected = listed(text)
    assert listed(unicodedata.normalize("NFKC", text)) == expected
    assert listed(f"\n «{text}» ") == expected
    ascii_text = text.encode("ascii", "ignore").decode()
    assert listed(ascii_text.upper()) == listed(ascii_text)


def test_hashes_are_equal_where_units_are_and_else_not() -> None:
    draw = random.Random(0)
    names = ["".join(draw.choices("abcd", k=draw.randint(1, 9))) for _ in range(20_000)]
    hashes, _ = unit_hashes([" ".join(names)])
    assert len(hashes) == len(names)
    assert len(dict(zip(names, hashes.tolist(), strict=True))) == len(set(names))
    assert len(np.unique(hashes)) == len(set(names))


@given(st.lists(st.lists(st.sampled_from("abc"), max_size=9), max_size=5), st.integers(1, 5))
def test_ngrams_stay_within_their_text(many: list[list[str]], length: int) -> None:
    grams, starts = ngram_hashes(*unit_hashes([" ".join(text) for text in many]), length)
    by_hash: dict[int, tuple[str, ...]] = {}
    for text, first, behind in zip(many, starts, starts[1:], strict=False):
        expected = [tuple(text[at : at + length]) for at in range(len(text) - length + 1)]
        if 0 < len(text) < length:
            expected = [tuple(text)]
        found = grams[first:behind].tolist()
        assert len(found) == len(expected)
        for gram, units_of_it in zip(found, expected, strict=True):
            assert by_hash.setdefault(gram, units_of_it) == units_of_it
    assert len(set(by_hash.values())) == len(by_hash)


def test_a_span_has_one_hash_wherever_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.tile(np.array([3, 1, 4, 1, 5, 9, 2], np.uint64), 50)
    begins = np.arange(len(values) - 4)
    whole = span_hashes(values, begins, begins + 4)
    assert len(np.unique(whole)) == 7
    assert (whole[7:] == whole[:-7]).all()
    monkeypatch.setattr(units, "_SPANS", 5)
    assert (span_hashes(values, begins, begins + 4) == whole).all()


def test_a_long_text_is_taken_apart_between_words(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "one two three 中文字符 four\nfive six seven " * 40
    whole, _ = unit_hashes([text])
    monkeypatch.setattr(units, "_CHARACTERS", 50)
    apart, starts = unit_hashes(["x", text, "y"])
    assert apart[1:-1].tolist() == whole.tolist()
    assert starts.tolist() == [0, 1, len(whole) + 1, len(whole) + 2]


def test_hashes_are_the_same_in_another_process() -> None:
    # Pinned, as signatures lie on the disk while other processes, and other machines, go on.
    expected = [3196248221100611930]
    assert unit_hashes(["Hello"])[0].tolist() == expected
    code = (
        "from teleflm.cleaning.units import unit_hashes; print(unit_hashes(['hello'])[0].tolist())"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == str(expected)


def test_a_lone_surrogate_is_a_gap() -> None:
    assert listed("a\ud800b") == ["a", "b"]
