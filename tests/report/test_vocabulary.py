"""The picture of tokenizers: a bar for every tokenizer and domain, by the names given."""

from pathlib import Path

import pytest

from teleflm.data.find import find_corpus
from teleflm.data.vocabulary import open_vocabulary
from teleflm.data.vocabulary_report import compare
from teleflm.report.figures import svg
from teleflm.report.vocabulary import draw_tokens_per_byte, write_vocabulary_picture


@pytest.mark.parametrize("gpt4", [[], ["tiktoken:cl100k_base"]], ids=["one", "two"])
def test_the_picture(corpus: Path, tokenizer_dir: Path, tmp_path: Path, gpt4: list[str]) -> None:
    names = [str(tokenizer_dir), *gpt4]
    fits, sizes = compare({n: open_vocabulary(n) for n in names}, find_corpus([corpus]))
    text = svg("vocabulary", (8, 4), lambda axes: draw_tokens_per_byte(axes, fits))
    for word in (*names, *sizes, "tokens per UTF-8 byte"):
        assert word in text
    for fit in fits.values():
        for rate in fit.tokens_per_byte.values():
            assert f"{rate:.3f}" in text
    write_vocabulary_picture(fits, tmp_path / "new" / "picture.png")
    assert (tmp_path / "new" / "picture.png").read_bytes().startswith(b"\x89PNG")
