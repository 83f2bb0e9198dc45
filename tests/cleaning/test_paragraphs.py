"""What stood before goes, and nothing else."""

from pathlib import Path

import pytest
from datatrove.data import Document
from hypothesis import given
from hypothesis import strategies as st

from teleflm.cleaning import paragraphs
from teleflm.cleaning.paragraphs import Paragraphs, ParagraphSettings, _joined, _parts
from tests.cleaning.planted import record, run, words, written


def step(**settings: object) -> Paragraphs:
    return Paragraphs(ParagraphSettings.model_validate(settings))


def paragraph(seed: int, units: int = 40, language: str = "en") -> str:
    return written(words(seed, units, language), language)


def page(*parts: str, gap: str = "\n\n") -> str:
    return gap.join(parts)


def dropped(folder: Path, *shards: list[Document], **settings: object) -> list[str]:
    return [i for i, v in run(step(**settings), folder, shards).items() if v is not None]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_paragraph_that_stood_before_goes(tmp_path: Path, language: str) -> None:
    notice = paragraph(0, 30, language)
    own = [paragraph(n, 50, language) for n in range(1, 7)]
    again = notice.upper().replace(". ", " –\n").replace("。", "！\n")
    documents = [
        record(page(own[0], notice, own[1]), "a", language),
        record(page(own[2], again, own[3]), "b", language),
        record(page(own[4], notice, "", notice), "c", language),
        record(page(own[5], notice), "d", "other"),
    ]
    assert dropped(tmp_path, documents[:1], documents[1:]) == []
    texts = [document.text for document in documents]
    assert texts[0] == page(own[0], notice, own[1])
    assert texts[1] == page(own[2], own[3])
    assert texts[2] == own[4]
    assert texts[3] == page(own[5], notice)


def test_a_line_as_long_as_a_paragraph_is_one(tmp_path: Path) -> None:
    lines = [paragraph(n, 25) for n in range(9)]
    documents = [
        record(page(*lines[:4], gap="\n"), "a"),
        record(page(lines[5], lines[2], lines[6], gap="\n"), "b"),
        record(page(lines[7], lines[1], lines[8]), "c"),
    ]
    assert dropped(tmp_path, documents) == []
    assert [document.text for document in documents[1:]] == [
        page(lines[5], lines[6], gap="\n"),
        page(lines[7], lines[8]),
    ]


def test_short_paragraphs_and_refrains_stay(tmp_path: Path) -> None:
    refrain = "So say we all, and so we say again"
    code = "def f(self):\n    return self.value\n}\n}"
    texts = [page(paragraph(n), refrain, code, paragraph(n + 50), refrain) for n in range(30)]
    documents = [record(text, str(n)) for n, text in enumerate(texts)]
    assert dropped(tmp_path, documents) == []
    assert [document.text for document in documents] == texts


def test_code_is_left_as_it_is(tmp_path: Path) -> None:
    text = page(paragraph(1), paragraph(2), paragraph(1))
    documents = [record(text, str(n), "code") for n in range(3)]
    assert dropped(tmp_path, documents, line_documents=2) == []
    assert {document.text for document in documents} == {text}


@pytest.mark.parametrize(("needed", "goes"), [(5, True), (6, False), (None, False)])
def test_a_short_line_goes_where_many_documents_have_it(
    tmp_path: Path, needed: int | None, goes: bool
) -> None:
    menu = "Home · About us · Contact · Privacy"
    documents = [
        record(page(menu, paragraph(n), menu if n == 1 else "Yes.", gap="\n"), str(n))
        for n in range(5)
    ]
    documents.append(record(page(menu, paragraph(9), gap="\n"), "german", "de"))
    before = [document.text for document in documents]
    shards = [documents[:2], [], documents[2:3], documents[3:4], documents[4:]]
    assert dropped(tmp_path, *shards, line_documents=needed) == []
    after = [document.text for document in documents]
    if not goes:
        assert after == before
        return
    assert after[0] == before[0]
    assert after[1] == paragraph(1)
    assert after[2:5] == [page(paragraph(n), "Yes.", gap="\n") for n in range(2, 5)]
    assert after[5] == before[5]


def test_a_document_of_which_too_little_is_left_goes(tmp_path: Path) -> None:
    notice, menu = paragraph(0, 30), "Home About Contact Privacy"
    short = "a poem of less than twenty words"
    documents = [
        record(page(notice, menu), "first"),
        record(page("Ours alone.", notice), "copy"),
        record(page(notice, paragraph(2)), "more"),
        record(page(menu, short), "short before"),
        record(notice, "all of it"),
    ]
    gone = dropped(tmp_path, documents, line_documents=2)
    assert gone == ["copy", "all of it"]
    assert documents[3].text == short


def test_what_went_is_counted(tmp_path: Path) -> None:
    lines = [paragraph(n, 25) for n in range(4)]
    texts = [
        page(*lines, gap="\n"),
        page(page(*lines, gap="\n"), paragraph(9)),
        page(paragraph(10), lines[3], gap="\n"),
    ]
    work = step()
    run(work, tmp_path, [[record(text, text) for text in texts]])
    judge = work.judge(tmp_path, 0)
    assert [judge(record(text, text)) for text in texts] == [None] * 3
    assert judge.details == {"paragraphs removed": 1, "lines removed": 1}


def test_a_paragraph_of_a_line_and_a_rule_is_there_once(tmp_path: Path) -> None:
    text = page(f"{paragraph(1)}\n=====", paragraph(2))
    documents = [record(text, "a")]
    assert dropped(tmp_path, documents) == []
    assert documents[0].text == text


@pytest.mark.parametrize(("order", "corpus_bytes"), [(1, 1), (2, 20_000_000), (3, 60_000_000)])
def test_the_result_is_the_same_in_any_order_and_number_of_tasks_and_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: int, corpus_bytes: int
) -> None:
    def made() -> list[Document]:
        return [
            record(page(*(paragraph((n * 7 + k * k) % 60, 25) for k in range(6))), str(n))
            for n in range(60)
        ]

    plain, again = made(), made()
    verdicts = run(step(), tmp_path / "plain", [plain])
    shards = [again[:7], [], again[7:40], again[40:]]
    monkeypatch.setattr(paragraphs, "_BATCH", 2000)
    assert run(step(), tmp_path / "again", shards, corpus_bytes, order) == verdicts
    assert [document.text for document in again] == [document.text for document in plain]
    assert sum(document.text != new.text for document, new in zip(plain, made(), strict=True)) > 9
    left = [part for document in plain for part in document.text.split("\n\n") if part]
    assert len(left) == len(set(left)) == len({p for d in made() for p in d.text.split("\n\n")})


@given(st.lists(st.sampled_from(["", " ", "a", "b c", "\r"]), max_size=12))
def test_parts_are_all_lines_that_are_not_blank(lines: list[str]) -> None:
    parts = list(_parts(lines))
    covered = [n for part in parts if part.whole for n in range(part.first, part.behind)]
    assert covered == [n for n, line in enumerate(lines) if line.strip()]
    assert len({(part.first, part.whole) for part in parts}) == len(parts)
    assert _joined(lines, [True] * len(lines)) == lines


@pytest.mark.parametrize(
    ("lines", "keep", "expected"),
    [
        ("a||X||b", "11011", "a||b"),
        ("a||X", "110", "a"),
        ("X||b", "011", "b"),
        ("a|X|b", "101", "a|b"),
        ("a||X||||b||c", "110111111", "a||b||c"),
        ("X", "0", ""),
        ("a||X|", "1101", "a"),
    ],
)
def test_blank_lines_around_what_went(lines: str, keep: str, expected: str) -> None:
    split = lines.split("|")
    assert len(split) == len(keep), (split, keep)
    assert "|".join(_joined(split, [flag == "1" for flag in keep])) == expected
