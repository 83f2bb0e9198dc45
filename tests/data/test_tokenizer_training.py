"""Training a tokenizer: what it learns from, and what the files say."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from teleflm.data.pieces import cut_pieces
from teleflm.data.pre_tokenizers import PRE_TOKENIZERS, name_of, pre_tokenizer
from teleflm.data.sampling import Sample
from teleflm.data.tokenizer import Tokenizer
from teleflm.data.tokenizer_training import LONGEST_WORD, SPECIAL_TOKENS, train_tokenizer
from teleflm.errors import DataError


def test_digits_are_single_tokens(tmp_path: Path) -> None:
    (tmp_path / "years.txt").write_text("in 2024 or 2024, x2024 " * 50)
    trained = train_tokenizer([tmp_path], 364, tmp_path / "out")
    assert len(trained.encode("2024")) == 4


def test_the_same_text_gives_the_same_file(
    corpus: Path, tokenizer_dir: Path, tmp_path: Path
) -> None:
    train_tokenizer([corpus], 424, tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / name).read_bytes() == (tokenizer_dir / name).read_bytes()


def test_learning_takes_as_long_without_spaces_as_with_them(tmp_path: Path) -> None:
    letters = "".join(np.random.default_rng(0).choice(list("ACDEFGHIKLMNPQRSTVWY"), 300_000))
    spaced = " ".join(letters[i : i + 10] for i in range(0, len(letters), 10))
    seconds = {}
    for name, text in (("spaced", spaced), ("joined", letters)):
        (tmp_path / f"{name}.txt").write_text(text)
        start = time.process_time()
        trained = train_tokenizer([tmp_path / f"{name}.txt"], 2000, tmp_path / name)
        seconds[name] = time.process_time() - start
        assert trained.vocab_size == 2000
    # Where words are not cut for learning, it takes 2.5 times as long, and longer for longer texts.
    assert seconds["joined"] < 2 * seconds["spaced"]
    # What is learnt is applied without cuts: a word longer than those learnt from is still one.
    assert trained.encode(letters[:16_000]) != [
        token for i in range(0, 16_000, 64) for token in trained.encode(letters[i : i + 64])
    ]


def test_special_strings_in_the_corpus_stay_text(tmp_path: Path) -> None:
    text = "</s> <s>a</s><unk><pad> " * 50
    (tmp_path / "evil.txt").write_text(text)
    trained = train_tokenizer([tmp_path], 364, tmp_path / "out")
    assert not set(trained.encode(text)) & {0, 1, 2, 3}
    assert trained.decode(trained.encode(text)) == text


def test_a_small_corpus_gives_a_smaller_vocabulary(tmp_path: Path) -> None:
    (tmp_path / "tiny.txt").write_text("the the the cat")
    trained = train_tokenizer([tmp_path], 1000, tmp_path / "out")
    assert 324 < trained.vocab_size < 334
    assert trained.decode(trained.encode("壹")) == "壹"


def test_training_refuses(corpus: Path, tokenizer_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"323 is too small.*324"):
        train_tokenizer([corpus], 323, tmp_path)
    with pytest.raises(DataError, match="has a tokenizer already"):
        train_tokenizer([corpus], 364, tokenizer_dir)
    (tmp_path / "bad.jsonl").write_text("{}")
    with pytest.raises(DataError, match="line 1"):
        train_tokenizer([tmp_path], 364, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_force_replaces_a_tokenizer(corpus: Path, tmp_path: Path) -> None:
    train_tokenizer([corpus], 364, tmp_path)
    train_tokenizer([corpus], 374, tmp_path, force=True)
    assert Tokenizer.load(tmp_path).vocab_size == 374


def read(folder: Path, name: str = "tokenizer.json") -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / name).read_text(encoding="utf-8"))
    return content


@pytest.mark.parametrize("cut", PRE_TOKENIZERS)
def test_it_learns_what_the_library_learns_from_the_text_itself(
    corpus: Path, tmp_path: Path, cut: str
) -> None:
    text = (corpus / "code.txt").read_text(encoding="utf-8")
    (tmp_path / "text.txt").write_text(text + "长" * 500 + "\n" + "不断" * 300, encoding="utf-8")
    trained = train_tokenizer([tmp_path / "text.txt"], 600, tmp_path, cut=cut)
    library = tokenizers.Tokenizer(models.BPE())
    parts = pre_tokenizers.Split(tokenizers.Regex(f".{{1,{LONGEST_WORD}}}"), "isolated")
    library.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizer(cut), parts])
    trainer = trainers.BpeTrainer(
        vocab_size=536,
        min_frequency=2,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    whole = (tmp_path / "text.txt").read_text(encoding="utf-8")
    library.train_from_iterator(cut_pieces(whole), trainer)
    assert trained.vocab_size > 364
    assert read(tmp_path)["model"]["merges"] == json.loads(library.to_str())["model"]["merges"]


@pytest.mark.parametrize("cut", PRE_TOKENIZERS)
def test_the_cut_has_a_name_in_the_files(corpus: Path, tmp_path: Path, cut: str) -> None:
    trained = train_tokenizer([corpus], 364, tmp_path, cut=cut)
    assert read(tmp_path, "tokenizer_config.json")["pre_tokenizer"] == cut
    assert name_of(read(tmp_path)) == cut
    assert trained.byte_lengths is not None
    with pytest.raises(DataError, match="--pre-tokenizer gpt9: not known; choose one of qwen2"):
        train_tokenizer([corpus], 364, tmp_path / "other", cut="gpt9")


def test_more_words_than_there_is_room_for(corpus: Path, tmp_path: Path) -> None:
    """Nearly every line of the text is new, so that all must be learnt from some of them."""
    random = np.random.default_rng(0)
    han = [chr(0x4E00 + i) for i in range(300)]
    lines = ["".join(random.choice(han, 12)) + "天地玄黄" for _ in range(4000)]
    (tmp_path / "text.txt").write_text("\n".join(lines), encoding="utf-8")
    trained = {
        room: train_tokenizer([tmp_path / "text.txt"], 900, tmp_path / str(room), most_bytes=room)
        for room in (10**9, 50_000)
    }
    whole, some = (len(t.encode("\n".join(lines[:200]))) for t in trained.values())
    assert whole < 200 * 52 / 2
    assert some < 1.06 * whole
    assert len(trained[50_000].encode("天地玄黄")) == len(trained[10**9].encode("天地玄黄")) == 1
    # A line that stands for others came once all the same, and is learnt by no means whole.
    most = train_tokenizer([tmp_path / "text.txt"], 9000, tmp_path / "most", most_bytes=50_000)
    assert min(len(most.encode(line)) for line in lines) > 1
    again = train_tokenizer([tmp_path / "text.txt"], 900, tmp_path / "again", most_bytes=50_000)
    assert again.fingerprint == trained[50_000].fingerprint != trained[10**9].fingerprint


def test_a_sample_learns_from_the_domains_that_have_a_weight(corpus: Path, tmp_path: Path) -> None:
    weights = {"english": 0.0, "chinese": 1.0, "code": 0.0}
    trained = train_tokenizer([corpus], 400, tmp_path / "some", sample=Sample(60_000, weights))
    alone = train_tokenizer([corpus / "chinese.jsonl"], 400, tmp_path / "alone")
    assert len(trained.encode("那船在")) == len(alone.encode("那船在")) < 4
    assert len(trained.encode("harbour")) == 7


def test_the_last_tokens_wait_for_chats_and_change_nothing_else(
    corpus: Path, tmp_path: Path
) -> None:
    trained = train_tokenizer([corpus], 400, tmp_path)
    names = ["<_user>", "<_system>", "<_bot>", "<_end>", *(f"<_spare_{i}>" for i in range(60))]
    assert [trained.id_of(name) for name in names] == list(range(336, 400))
    assert trained.special_ids == {0, 1, 2, 3, *range(336, 400)}
    assert max(trained.encode("A <_bot> is text, </s> too.")) < 336
    # The others are those that are learnt without them.
    merges = read(tmp_path)["model"]["merges"]
    assert len(merges) == 400 - 324
    train_tokenizer([corpus], 410, tmp_path / "more")
    assert read(tmp_path / "more")["model"]["merges"][: len(merges)] == merges
