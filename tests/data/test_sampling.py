"""A sample of a corpus: how much of which domain, and evenly."""

import json
from collections import Counter
from pathlib import Path

import pytest

from teleflm.data.find import Corpus, find_corpus
from teleflm.data.sampling import Sample, parse_size, parse_weights, sampled_texts
from teleflm.errors import DataError


@pytest.fixture
def three(tmp_path: Path) -> Corpus:
    """Domains a, b and c of 100, 40 and 4 kB in texts that begin with the domain and a number."""
    for domain, texts in (("a", 1000), ("b", 400), ("c", 40)):
        records = (json.dumps({"text": f"{domain}{i:04d}" + "é" * 47 + "."}) for i in range(texts))
        (tmp_path / f"{domain}.jsonl").write_text("\n".join(records))
    return find_corpus([tmp_path])


def sizes(texts: list[str]) -> Counter[str]:
    found: Counter[str] = Counter()
    for text in texts:
        found[text[0]] += len(text.encode())
    return found


def test_all_without_a_sample_and_for_one_that_is_larger(three: Corpus) -> None:
    everything = list(sampled_texts(three))
    assert len(everything) == 1440
    assert list(sampled_texts(three, sample=Sample(10**9))) == everything


def test_without_weights_each_domain_has_its_share(three: Corpus) -> None:
    taken = list(sampled_texts(three, sample=Sample(14_400)))
    assert sizes(taken) == {"a": 10_000, "b": 4_000, "c": 400}
    numbers = [int(text[1:5]) for text in taken if text[0] == "a"]
    assert numbers == list(range(0, 1000, 10))
    assert taken == list(sampled_texts(three, sample=Sample(14_400)))


def test_weights_divide_the_bytes(three: Corpus, capsys: pytest.CaptureFixture[str]) -> None:
    sample = Sample(30_000, {"a": 1, "b": 2, "c": 0})
    assert sizes(list(sampled_texts(three, sample=sample))) == {"a": 10_000, "b": 20_000}
    assert capsys.readouterr().err == ""
    poor = Sample(30_000, {"a": 1, "b": 0, "c": 1})
    assert sizes(list(sampled_texts(three, sample=poor))) == {"a": 15_000, "c": 4_000}
    assert "domain c: 4,000 bytes of text, all of them taken" in capsys.readouterr().err


def test_a_long_document_is_taken_in_parts(tmp_path: Path) -> None:
    text = "".join(f"line {i}\n" for i in range(40_000))
    (tmp_path / "long.jsonl").write_text(json.dumps({"text": text}))
    taken = list(sampled_texts(find_corpus([tmp_path]), sample=Sample(100_000)))
    assert 100_000 <= sum(map(len, taken)) < 100_000 + 16_384
    assert "line 39" in taken[-1]


def test_progress_counts_both_ways_and_notes_come_once(
    three: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "null.jsonl").write_text('{"text": null}\n{"text": "n"}')
    corpus, seen = find_corpus([tmp_path]), [0]

    def progress(count: int) -> None:
        seen[0] += count

    list(sampled_texts(corpus, sample=Sample(1000), progress=progress))
    assert seen[0] == 2 * corpus.bytes
    assert capsys.readouterr().err.count("null") == 2  # in one note: the value and the file's name


def test_weights_that_are_not_of_the_domains(three: Corpus) -> None:
    with pytest.raises(DataError, match="--weight d: the corpus has no such domain; it has a, b"):
        list(sampled_texts(three, sample=Sample(10, {"a": 1, "d": 1})))
    with pytest.raises(DataError, match="none for the domain b; give each domain one"):
        list(sampled_texts(three, sample=Sample(10, {"a": 1, "c": 1})))


@pytest.mark.parametrize(
    ("text", "size"), [("4GB", 4 * 10**9), ("500 MB", 5 * 10**8), ("2.5kb", 2500), ("7", 7)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "0", "-1MB", "4GiB", "1e9", "nan", "4 G B"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(DataError, match="not a size; write it as 500MB or 4GB"):
        parse_size(text)


def test_weights() -> None:
    assert parse_weights(["en=2", "a=b=0.5"]) == {"en": 2.0, "a=b": 0.5}
    for bad in ("en", "=1", "en=", "en=-1", "en=nan", "en=1e3"):
        with pytest.raises(DataError, match=r"write it as DOMAIN=W"):
            parse_weights([bad])
    with pytest.raises(DataError, match="en has a weight already"):
        parse_weights(["en=1", "en=2"])
    with pytest.raises(DataError, match="all are 0"):
        parse_weights(["en=0"])
