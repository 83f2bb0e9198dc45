import json
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from teleflm.data.tokenizer import Tokenizer, train_tokenizer
from teleflm.errors import DataError

TRICKY = [
    "",
    " ",
    "  leading, trailing  ",
    "a</s>b <s><pad> <unk>\n",
    "don 't . , clean \t\r\n up",
    "第5回 1234567890 ١٢٣ ½",
    "\x00\x1b[31m\ufeff\U0001f600\u0301",
]


def test_special_ids_and_sizes(tokenizer: Tokenizer) -> None:
    assert (tokenizer.unk_id, tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (0, 1, 2, 3)
    assert tokenizer.vocab_size == 360


@settings(max_examples=25, deadline=None)
@given(st.text())
def test_any_text_round_trips_and_its_bytes_are_a_look_up(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids, skip_special_tokens=False) == text
    assert tokenizer.byte_lengths()[ids].sum() == len(text.encode())
    assert not set(ids) & {0, 1, 2, 3}


@pytest.mark.parametrize("text", TRICKY)
def test_tricky_texts(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.encode_batch([text, "x"])[0] == ids
    assert tokenizer.decode(ids) == text
    assert not set(ids) & {0, 1, 2, 3}


def test_special_tokens_have_no_bytes_and_others_have(tokenizer: Tokenizer) -> None:
    lengths = tokenizer.byte_lengths()
    assert lengths.dtype == np.int64
    assert lengths.shape == (360,)
    assert not lengths[:4].any()
    assert lengths[4:].min() == 1
    assert tokenizer.decode([1, *tokenizer.encode("a"), 2]) == "a"
    assert tokenizer.decode([2], skip_special_tokens=False) == "</s>"


def test_digits_are_single_tokens(tmp_path: Path) -> None:
    (tmp_path / "years.txt").write_text("in 2024 or 2024, x2024 " * 50)
    trained = train_tokenizer([tmp_path], 300, tmp_path / "out")
    assert len(trained.encode("2024")) == 4


def test_the_same_text_gives_the_same_file(
    corpus: Path, tokenizer_dir: Path, tmp_path: Path
) -> None:
    train_tokenizer([corpus], 360, tmp_path)
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
    trained = train_tokenizer([tmp_path], 300, tmp_path / "out")
    assert not set(trained.encode(text)) & {0, 1, 2, 3}
    assert trained.decode(trained.encode(text)) == text


def test_a_small_corpus_gives_a_smaller_vocabulary(tmp_path: Path) -> None:
    (tmp_path / "tiny.txt").write_text("the the the cat")
    trained = train_tokenizer([tmp_path], 1000, tmp_path / "out")
    assert 260 < trained.vocab_size < 270
    assert trained.decode(trained.encode("壹")) == "壹"


def test_training_refuses(corpus: Path, tokenizer_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"259 is too small.*260"):
        train_tokenizer([corpus], 259, tmp_path)
    with pytest.raises(DataError, match="has a tokenizer already"):
        train_tokenizer([corpus], 300, tokenizer_dir)
    (tmp_path / "bad.jsonl").write_text("{}")
    with pytest.raises(DataError, match="line 1"):
        train_tokenizer([tmp_path], 300, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_force_replaces_a_tokenizer(corpus: Path, tmp_path: Path) -> None:
    train_tokenizer([corpus], 300, tmp_path)
    train_tokenizer([corpus], 310, tmp_path, force=True)
    assert Tokenizer.load(tmp_path).vocab_size == 310


def test_the_fingerprint_is_of_the_content(
    tokenizer: Tokenizer, tokenizer_dir: Path, tmp_path: Path
) -> None:
    content = json.loads((tokenizer_dir / "tokenizer.json").read_text())
    same = tmp_path / "tokenizer.json"
    same.write_text(json.dumps(dict(reversed(content.items()))))
    assert Tokenizer.load(tmp_path).fingerprint == tokenizer.fingerprint
    content["model"]["merges"].pop()
    same.write_text(json.dumps(content))
    assert Tokenizer.load(tmp_path).fingerprint != tokenizer.fingerprint


def test_a_file_that_asks_for_truncation_does_not_get_it(
    tokenizer: Tokenizer, tokenizer_dir: Path, tmp_path: Path
) -> None:
    content = json.loads((tokenizer_dir / "tokenizer.json").read_text())
    content["truncation"] = {
        "direction": "Right",
        "max_length": 2,
        "strategy": "LongestFirst",
        "stride": 0,
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    assert Tokenizer.load(tmp_path).encode("no cut here") == tokenizer.encode("no cut here")


def test_bad_folders_are_named(tokenizer_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    with pytest.raises(DataError, match=r"tokenizer\.json: no such file; train"):
        Tokenizer.load(tmp_path)
    whole = (tokenizer_dir / "tokenizer.json").read_text()
    for damaged in (whole[:1000], "[]", "{}", ""):
        file.write_text(damaged)
        with pytest.raises(DataError, match=r"tokenizer\.json: damaged"):
            Tokenizer.load(tmp_path)
    file.write_bytes(b"\xff\xff")
    with pytest.raises(DataError, match="cannot be read"):
        Tokenizer.load(tmp_path)
    file.write_text(json.dumps(json.loads(whole) | {"decoder": None}))
    with pytest.raises(DataError, match="not a byte-level tokenizer"):
        Tokenizer.load(tmp_path)
    file.write_text(whole.replace('"<pad>"', '"<fill>"'))
    with pytest.raises(DataError, match="lacks <pad>"):
        Tokenizer.load(tmp_path)


def test_a_lone_surrogate_is_a_data_error(tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match="lone surrogate"):
        tokenizer.encode("a\udcff")


def test_transformers_reads_it_without_our_code(tokenizer: Tokenizer, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer.save(tmp_path, model_max_length=77)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs.model_max_length == 77
    assert len(theirs) == tokenizer.vocab_size
    assert (
        theirs.unk_token_id,
        theirs.bos_token_id,
        theirs.eos_token_id,
        theirs.pad_token_id,
    ) == (0, 2, 2, 3), "a text begins after the end of another one"
    for text in TRICKY:
        ids = theirs(text)["input_ids"]
        assert ids == tokenizer.encode(text)
        assert theirs.decode(ids) == text
    assert theirs.decode([1, *tokenizer.encode("a"), 2], skip_special_tokens=True) == "a"
