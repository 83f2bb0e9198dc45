"""The benchmark of MinHash runs, and counts what it says it counts."""

import json
from pathlib import Path

import pytest

from tests.cleaning.planted import words, written

pytest.importorskip("xxhash")

from benchmarks.minhash import exact_pairs, main, quality, with_copies


def test_it_measures_both_languages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for language in ("en", "zh"):
        texts = [written(words(n, 200, language), language) for n in range(60)]
        lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
        (tmp_path / f"{language}.jsonl").write_text(lines)
    files = ["--english", str(tmp_path / "en.jsonl"), "--chinese", str(tmp_path / "zh.jsonl")]
    main([*files, "--copies", "35", "--rounds", "1"])
    out = capsys.readouterr().out.splitlines()[1:]
    by_name = {line.split(":")[0] + line[line.index(":") + 1 :][:16].rstrip(): line for line in out}
    assert {"en, 95 teleflm", "zh, 95 teleflm", "en, 95 datatrove, spli"} <= {
        name[:22] for name in by_name
    }
    for name, line in by_name.items():
        if "teleflm" in name:
            found, planted = line.split()[-3].split("/")
            assert int(found) == int(planted) > 3, line
            assert line.split()[-1].startswith("0/"), line


def test_what_is_found_and_what_is_false() -> None:
    # 0 and 1 are alike, 2 is like neither, 3 has half of 0.
    sets = [frozenset(range(20)), frozenset(range(1, 20)), frozenset((99,)), frozenset(range(11))]
    pairs = exact_pairs(sets)
    assert pairs == {(0, 1): 0.95, (0, 3): 0.55, (1, 3): 0.5}
    assert quality({1, 2}, pairs, 4).split() == ["1/2", "0/0", "0/0", "0/0", "1/1", "1/2"]


def test_copies_are_changed_by_known_shares() -> None:
    texts = [" ".join(words(n, 100)) for n in range(14)]
    copies = with_copies(texts, "en", 14)[14:]
    differences = sorted(
        min(
            sum(a != b for a, b in zip(copy.text.split(), text.split(), strict=True))
            for text in texts
        )
        for copy in copies
    )
    assert differences[:2] == [1, 1]
    assert differences[2:4] == [2, 2]
    assert 15 < differences[11] <= 20
