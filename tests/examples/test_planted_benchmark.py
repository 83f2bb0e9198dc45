"""The benchmark of planted text runs both shipped recipes, and finds what it planted."""

import json
import random
import re
from pathlib import Path

import pytest

from benchmarks.planted import main
from tests.cleaning.bad_text import clean

pytest.importorskip("datatrove")


@pytest.mark.slow
def test_it_measures_both_languages(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = []
    for language in ("en", "zh"):
        draw = random.Random(0)
        texts = ["\n\n".join(draw.sample(clean(language), 4)) for _ in range(24)]
        rows = "".join(json.dumps({"text": text}) + "\n" for text in texts)
        (tmp_path / f"{language}.jsonl").write_text(rows)
        arguments.append(f"{language}={tmp_path / language}.jsonl")
    monkeypatch.setattr("sys.argv", ["planted.py", *arguments, "--most", "6", "--workers", "2"])
    main()
    out = capsys.readouterr().out
    assert out.count("2 workers: the same") == 2
    assert out.count("without one: 0") == 2
    for found, planted in re.findall(r"Jaccard 0\.[89] .*: (\d+) of (\d+) dropped", out):
        assert found == planted
    for found, planted in re.findall(r"test item +(\d+) of +(\d+)", out):
        assert found == planted != "0"
