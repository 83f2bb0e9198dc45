"""Every test item is found, however it is written; nothing else is."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from datatrove.data import Document

from teleflm.cleaning import units
from teleflm.cleaning.decontaminate import Decontaminate, DecontaminateSettings, read_test_sets
from teleflm.cleaning.items import Counts
from teleflm.config.base import build
from teleflm.errors import ConfigError, DataError
from tests.cleaning.planted import record, words, written


def lines(path: Path, *records: Any) -> str:
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records), "utf-8")
    return str(path)


def settings(*paths: str, **given: Any) -> DecontaminateSettings:
    return build(DecontaminateSettings, {"test_sets": list(paths), **given}, "test")


def step(*paths: str, **given: Any) -> Decontaminate:
    return Decontaminate(settings(*paths, **given))


def body(seed: int, count: int, language: str) -> str:
    """Text of which no two seeds share an n-gram."""
    return written(words(seed + 1000, count, language), language)


def item(seed: int, language: str, length: int | None = None) -> str:
    draw = random.Random(seed)
    if language == "zh":
        return "".join(chr(0x4E00 + draw.randrange(5000)) for _ in range(length or 20))
    return " ".join("".join(draw.choices("abcdefgh", k=5)) for _ in range(length or 13))


def planted(text: str, seed: int, language: str) -> Document:
    """`text` in the middle of another one."""
    around = body(seed, 80, language)
    middle = around.index(". " if language == "en" else "。", len(around) // 2) + 2
    return record(f"{around[:middle]}\n{text}\n{around[middle:]}", "planted", language)


def rewritten(text: str, language: str) -> dict[str, str]:
    parts = text.split(" ") if language == "en" else list(text)
    gap = " " if language == "en" else ""
    return {
        "as it is": text,
        "upper case": text.upper(),
        "commas": f",{gap}".join(parts),
        "lines": "\n".join(parts),
        "wide": "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text),
        "quoted": f"„{gap.join(parts[:4])}“{gap}({gap.join(parts[4:])})!",
        "hyphens": gap.join(parts[:4]) + f"-{gap}" + gap.join(parts[4:]),
        "within": f"“{text}”",
    }


@pytest.mark.parametrize("around", ["en", "zh"])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_each_item_is_found_however_it_is_written(
    tmp_path: Path, language: str, around: str
) -> None:
    items = [item(seed, language) for seed in range(40)]
    path = lines(tmp_path / "quiz.jsonl", *({"question": text, "answer": 3} for text in items))
    work = step(path)
    for seed, text in enumerate(items):
        for how, form in rewritten(text, language).items():
            document = planted(form, seed, around)
            assert work(document) == "test item", (how, document.text)
            assert document.metadata["hit"]["test_set"] == path
            assert document.metadata["hit"]["ngram"] == text
        assert work(planted(body(seed + 500, 40, language), seed, around)) is None
    assert work.details == {f"hits {path}": 40 * 8}


@pytest.mark.parametrize(("language", "least"), [("en", 13), ("zh", 20)])
def test_one_unit_less_is_another_text(tmp_path: Path, language: str, least: int) -> None:
    whole = item(7, language, 3 * least)
    work = step(lines(tmp_path / "quiz.jsonl", {"question": whole}))
    parts = whole.split(" ") if language == "en" else list(whole)
    gap = " " if language == "en" else ""
    for first in range(0, 2 * least, 5):
        assert work(planted(gap.join(parts[first : first + least]), first, "en")) == "test item"
        assert work(planted(gap.join(parts[first : first + least - 1]), first, "en")) is None
        # All but the last letter, or one more, of the last word.
        if language == "en":
            run = gap.join(parts[first : first + least])
            assert work(record(run[:-1], "less")) is None
            assert work(record(f"{run}x", "more")) is None


def test_words_and_characters_mixed(tmp_path: Path) -> None:
    # Seven words and ten characters: 7/13 + 10/20 is more than one.
    text = f"{item(1, 'en', 7)} {item(1, 'zh', 10)}"
    less = f"{item(2, 'en', 6)} {item(2, 'zh', 10)}"
    path = lines(tmp_path / "quiz.jsonl", text, less)
    work = step(path)
    assert work(planted(text, 1, "zh")) == "test item"
    assert work(planted(less, 1, "zh")) is None
    assert read_test_sets(settings(path)).counts == {path: Counts(2, 1)}


def test_words_written_together_or_apart(tmp_path: Path) -> None:
    text = "A well-known state-of-the-art method isn't what we'd use for this one, they said."
    work = step(lines(tmp_path / "quiz.jsonl", {"q": text}))
    for form in (
        text.replace("-", " ").replace("'", ""),
        text.replace("-", ""),
        text.replace("'", "’").replace("-", "–"),
        text.replace("'", ""),
    ):
        assert work(planted(form, 1, "en")) == "test item", form


@pytest.mark.parametrize(
    "text",
    [
        "Anna has 3 + 4 - 5 * 6 apples / 7 pears = ?",
        "小明有3个苹果，吃了2个，还剩几个？答：一个！",
    ],
)
def test_an_item_that_is_long_enough_as_written(tmp_path: Path, text: str) -> None:
    work = step(lines(tmp_path / "quiz.jsonl", {"q": text}))
    assert work(planted(text, 1, "en")) == "test item"
    assert work(planted(text[:-6], 1, "en")) is None


@pytest.mark.parametrize(
    "text", ["Кто написал роман о войне и мире?", "(A) one; (B) two; (C) three; (D) four?"]
)
def test_letters_and_symbols_make_no_long_item_where_words_are_written(
    tmp_path: Path, text: str
) -> None:
    path = lines(tmp_path / "quiz.jsonl", {"q": text})
    assert read_test_sets(settings(path)).counts == {path: Counts(1, 1)}
    assert step(path)(planted(text, 1, "en")) is None


def test_every_string_of_a_record_counts(tmp_path: Path) -> None:
    nested = {
        "id": 7,
        "question": item(1, "en"),
        "choices": {"text": [item(2, "zh"), item(3, "en")], "label": ["A", "B"]},
        "answers": [{"text": item(4, "zh"), "start": 5}, None],
    }
    work = step(lines(tmp_path / "quiz.jsonl", nested))
    for seed, language in ((1, "en"), (2, "zh"), (3, "en"), (4, "zh")):
        assert work(planted(item(seed, language), seed, "en")) == "test item"
    # Short fields as they follow each other.
    short = {"question": item(5, "en", 8), "answer": item(6, "en", 6)}
    work = step(lines(tmp_path / "more.jsonl", short, nested))
    both = f"Q: {short['question']}?\n{short['answer']}"
    assert work(planted(both, 1, "en")) == "test item"
    # But not from one record to the next.
    apart = step(lines(tmp_path / "apart.jsonl", {"q": item(5, "en", 8)}, {"q": item(6, "en", 8)}))
    assert apart(planted(f"{item(5, 'en', 8)} {item(6, 'en', 8)}", 1, "en")) is None


def test_all_kinds_of_files_and_folders(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    folder = tmp_path / "sets"
    folder.mkdir()
    (folder / "a.txt").write_text(f"{item(1, 'en')}\n\n{item(2, 'zh')}\ntoo short\n", "utf-8")
    (folder / "b.json").write_text(json.dumps([{"q": item(3, "en")}, {"q": "short"}]), "utf-8")
    rows = {"q": ["short", "x"], "choices": [[item(4, "zh"), "b"], ["c"]], "n": [1, 2]}
    parquet.write_table(pyarrow.table(rows), folder / "c.parquet")
    work = step(str(folder))
    for seed, language in ((1, "en"), (2, "zh"), (3, "en"), (4, "zh")):
        assert work(planted(item(seed, language), seed, "zh")) == "test item"
    assert sorted(work.details.values()) == [1, 1, 2]


def test_short_items_are_counted_and_told(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "quiz.jsonl",
        {"q": "How many?", "a": "Two"},
        {"q": item(1, "en", 12)},
        {"q": item(1, "zh", 19)},
        {"q": item(1, "en", 13), "a": "No"},
        "!?",
    )
    items = read_test_sets(settings(path))
    assert items.counts == {path: Counts(5, 4)}
    (told,) = step(path).notes()
    assert told.startswith(f"{path}: 4 of 5 items have less than 13 words or 20 characters")


def test_only_short_items_find_nothing(tmp_path: Path) -> None:
    work = step(lines(tmp_path / "quiz.jsonl", {"q": "How many?"}))
    assert work(record(body(1, 90, "en") + " How many?", "a")) is None
    assert work(record("", "empty")) is None


def test_the_least_lengths_are_settings(tmp_path: Path) -> None:
    path = lines(tmp_path / "quiz.jsonl", {"q": item(1, "en", 5)}, {"q": item(1, "zh", 6)})
    work = step(path, words=5, characters=6)
    assert work(planted(item(1, "en", 5), 1, "en")) == "test item"
    assert work(planted(item(1, "zh", 6), 1, "en")) == "test item"
    assert work(planted(item(1, "zh", 5), 1, "en")) is None


def test_long_documents_and_many_items(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "_CHARACTERS", 3000)
    texts = [item(seed, "en", 30) for seed in range(300)]
    work = step(lines(tmp_path / "quiz.jsonl", *texts))
    for at in (0, 150, 299):
        document = record(f"{body(1, 900, 'en')}\n{texts[at]}\n{body(2, 900, 'en')}", "a")
        assert work(document) == "test item"
    assert work(record(body(1, 2000, "en"), "b")) is None


def test_bad_test_sets_are_named(tmp_path: Path) -> None:
    empty = lines(tmp_path / "empty.jsonl", {"n": 1})
    with pytest.raises(DataError, match=r"empty\.jsonl: no text in this test set"):
        step(empty)
    with pytest.raises(DataError, match=r"nowhere\.jsonl: no such file"):
        step(str(tmp_path / "nowhere.jsonl"))
    (tmp_path / "bad.jsonl").write_text("{")
    with pytest.raises(DataError, match=r"bad\.jsonl, line 1: not valid JSON"):
        step(str(tmp_path / "bad.jsonl"))
    with pytest.raises(ConfigError, match="test_sets"):
        step()
