import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from teleflm.data.special_ids import generation_config, special_ids
from teleflm.data.tokenizer import Tokenizer, check_tokenizer
from teleflm.data.tokenizer_training import RESERVED_TOKENS
from teleflm.errors import DataError
from tests.foreign import foreign

TRICKY = [
    "",
    " ",
    "  leading, trailing  ",
    "a</s>b <s><pad> <unk>\n",
    "don 't . , clean \t\r\n up",
    "第5回 1234567890 ١٢٣ ½",
    "\x00\x1b[31m\ufeff\U0001f600\u0301",
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return foreign(tmp_path_factory.mktemp("foreign"))


def lengths_of(tokenizer: Tokenizer) -> np.ndarray:
    found = tokenizer.byte_lengths
    assert found is not None
    return found


def test_special_ids_and_sizes(tokenizer: Tokenizer, tokenizer_dir: Path) -> None:
    ids = {"bos_token_id": 2, "eos_token_id": 2, "pad_token_id": 3}
    assert special_ids(tokenizer_dir) == ids
    assert (tokenizer.eos_id, tokenizer.end_ids, tokenizer.opening) == (2, {2}, [])
    assert tokenizer.vocab_size == 424
    assert tokenizer.absent_ids(426) == [424, 425]


@settings(max_examples=25, deadline=None)
@given(st.text())
def test_any_text_round_trips_and_its_bytes_are_a_look_up(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids, skip_special_tokens=False) == text
    assert lengths_of(tokenizer)[ids].sum() == len(text.encode())
    assert not set(ids) & {0, 1, 2, 3}


@pytest.mark.parametrize("text", TRICKY)
def test_tricky_texts(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.encode_batch([text, "x"])[0] == ids
    assert tokenizer.decode(ids) == text
    assert not set(ids) & {0, 1, 2, 3}


def test_special_tokens_have_no_bytes_and_others_have(tokenizer: Tokenizer) -> None:
    lengths = lengths_of(tokenizer)
    assert lengths.dtype == np.int64
    assert lengths.shape == (424,)
    special = [*range(4), *range(424 - len(RESERVED_TOKENS), 424)]
    assert not lengths[special].any() and np.delete(lengths, special).min() == 1
    assert tokenizer.decode([1, *tokenizer.encode("a"), 2]) == "a"
    assert tokenizer.decode([2], skip_special_tokens=False) == "</s>"


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
    with pytest.raises(DataError, match=r"tokenizer\.json: no such file; put .* train"):
        Tokenizer.load(tmp_path)
    whole = (tokenizer_dir / "tokenizer.json").read_text()
    for damaged in (whole[:1000], "[]", "{}", ""):
        file.write_text(damaged)
        with pytest.raises(DataError, match=r"tokenizer\.json: damaged"):
            Tokenizer.load(tmp_path)
    file.write_bytes(b"\xff\xff")
    with pytest.raises(DataError, match="cannot be read"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize("kind", ["named", "mapped", "no-pad", "pieces", "unigram"])
def test_any_tokenizer_of_a_folder(folders: dict[str, Path], kind: str) -> None:
    loaded = Tokenizer.load(folders[kind])
    library = tokenizers.Tokenizer.from_file(str(folders[kind] / "tokenizer.json"))
    eos = "<|end|>" if kind in ("named", "mapped") else "</s>"
    assert loaded.eos_id == library.token_to_id(eos)
    assert loaded.end_ids == {loaded.eos_id}
    assert loaded.opening == ([1] if kind == "pieces" else [])
    for text in ("The ship 那 sailed", " two  spaces ", f"a{eos}b"):
        ids = loaded.encode(text)
        assert loaded.eos_id not in ids and 1 not in ids
        assert loaded.encode_batch([text]) == [ids]
        assert loaded.encode_prompt(text) == [*loaded.opening, *ids]
        if kind != "unigram":  # which has no token for some of these characters
            assert loaded.decode(ids) == text
    begins = {"named": [0], "mapped": [0], "unigram": [loaded.eos_id]}
    assert loaded.encode_prompt("") == begins.get(kind, [1])
    assert (loaded.byte_lengths is None) == (kind in ("pieces", "unigram"))


def test_what_a_continuation_adds_keeps_its_space(folders: dict[str, Path]) -> None:
    loaded = Tokenizer.load(folders["pieces"])
    prompt, new = loaded.encode_prompt("The ship"), loaded.encode("sailed")
    assert loaded.decode(new) == "sailed"
    assert loaded.decode_after(prompt, new) == " sailed"


@pytest.mark.parametrize("kind", ["named", "mapped", "no-pad", "pieces", "unigram"])
def test_a_copy_is_the_same_to_us_and_to_transformers(
    folders: dict[str, Path], kind: str, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    loaded = Tokenizer.load(folders[kind])
    loaded.save(tmp_path / "copy")
    copied = Tokenizer.load(tmp_path / "copy")
    assert copied.fingerprint == loaded.fingerprint
    assert (copied.eos_id, copied.opening) == (loaded.eos_id, loaded.opening)
    text = "The ship sailed on 那"
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "copy")
    assert theirs(text)["input_ids"] == loaded.encode_prompt(text)


@pytest.mark.parametrize("kind", ["named", "mapped", "no-pad", "pieces", "unigram"])
def test_a_store_s_tokenizer_begins_a_text_as_its_documents_do(
    folders: dict[str, Path], kind: str, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    shutil.copytree(folders[kind], tmp_path / "source")
    settings = {"bos_token_id": 0, "top_p": 0.9}
    (tmp_path / "source" / "generation_config.json").write_text(json.dumps(settings))
    loaded = Tokenizer.load(tmp_path / "source")
    assert loaded.encode_prompt("") == ([1] if kind == "pieces" else [0])
    loaded.save(tmp_path / "copy")
    saved = Tokenizer.load(tmp_path / "copy")
    begins = [1] if kind == "pieces" else [loaded.eos_id]
    assert saved.eos_id == loaded.eos_id
    assert saved.encode_prompt("") == begins
    bos = special_ids(tmp_path / "copy")["bos_token_id"]
    assert bos == (0 if kind == "pieces" else loaded.eos_id)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "copy")
    # Unigram models name none, and none is made up.
    assert [theirs.bos_token_id] == ([None] if kind == "unigram" else begins)


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("normalizer", {"type": "NFC"}),
        ("decoder", {"type": "Fuse"}),
        ("pre_tokenizer", {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True}),
        ("pre_tokenizer", {"type": "Whitespace"}),
    ],
)
def test_a_text_that_is_changed_has_other_bytes_than_its_tokens(
    tokenizer_dir: Path, tmp_path: Path, part: str, value: dict[str, Any]
) -> None:
    content = json.loads((tokenizer_dir / "tokenizer.json").read_text())
    (tmp_path / "tokenizer.json").write_text(json.dumps(content | {part: value}))
    assert Tokenizer.load(tmp_path).byte_lengths is None


def test_a_vocabulary_without_a_byte_drops_text(tokenizer_dir: Path, tmp_path: Path) -> None:
    content = json.loads((tokenizer_dir / "tokenizer.json").read_text())
    content["model"]["vocab"]["Ā0"] = content["model"]["vocab"].pop("Ā")  # the byte 0
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    dropping = Tokenizer.load(tmp_path)
    assert dropping.decode(dropping.encode("a\x00b")) == "ab"
    assert dropping.byte_lengths is None


def test_ends_of_text_and_holes_of_the_vocabulary(folders: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(folders["named"], tmp_path, dirs_exist_ok=True)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 7]}))
    assert Tokenizer.load(tmp_path).end_ids == {1, 7}
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    content["model"]["vocab"]["far"] = 340
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    holed = Tokenizer.load(tmp_path)
    assert holed.vocab_size == 341
    assert holed.absent_ids(343) == [*range(330, 340), 341, 342]
    # The library would give an added token the next free id, whatever its own.
    content["added_tokens"].append({**content["added_tokens"][0], "id": 350, "content": "<|far|>"})
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"'<\|far\|>' has id 350 there and 331 once it is read"):
        Tokenizer.load(tmp_path)


def test_no_token_that_ends_a_text(folders: dict[str, Path], tmp_path: Path) -> None:
    shutil.copyfile(folders["named"] / "tokenizer.json", tmp_path / "tokenizer.json")
    loaded = Tokenizer.load(tmp_path)
    assert (loaded.eos_id, loaded.end_ids) == (None, frozenset())
    with pytest.raises(DataError, match=r"an empty prompt .* eos_token in tokenizer_config\.json"):
        loaded.encode_prompt("")
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": [5, 1]}))
    assert Tokenizer.load(tmp_path).eos_id == 5


def test_a_tokenizer_of_another_vocabulary(folders: dict[str, Path], tmp_path: Path) -> None:
    check_tokenizer(folders["named"], 330)
    with pytest.raises(DataError, match=r"tokenizer\.json: has token ids up to 329 .* of 329"):
        check_tokenizer(folders["named"], 329)


def test_a_lone_surrogate_is_a_data_error(tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match="lone surrogate"):
        tokenizer.encode("a\udcff")


def test_transformers_reads_it_without_our_code(tokenizer: Tokenizer, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
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


def changed(folder: Path, out: Path, **parts: Any) -> Tokenizer:
    """The tokenizer of `folder` with other parts of its definition, in `out`."""
    shutil.copytree(folder, out)
    content = json.loads((out / "tokenizer.json").read_text())
    (out / "tokenizer.json").write_text(json.dumps(content | parts))
    return Tokenizer.load(out)


def test_what_is_unknown_is_one_token_and_not_its_name(folders: dict[str, Path]) -> None:
    transformers = pytest.importorskip("transformers")
    loaded = Tokenizer.load(folders["unigram"])
    theirs = transformers.AutoTokenizer.from_pretrained(folders["unigram"])
    text = "The ship Ж sailed ☃☃"
    unknown = theirs.convert_tokens_to_ids("<unk>")
    assert loaded.encode(text).count(unknown) == 2
    assert loaded.encode(text) == theirs(text, add_special_tokens=False)["input_ids"]


def test_the_opening_is_found_where_a_letter_is_unknown(tmp_path: Path) -> None:
    library = tokenizers.Tokenizer(tokenizers.models.BPE({"<s>": 0, "</s>": 1, "船": 2}, []))
    library.add_special_tokens(["<s>", "</s>"])
    library.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    library.save(str(tmp_path / "tokenizer.json"))
    assert Tokenizer.load(tmp_path).opening == [0]


def test_a_step_that_drops_spaces_has_other_bytes(tokenizer_dir: Path, tmp_path: Path) -> None:
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    for number, step in enumerate(("WhitespaceSplit", "BertPreTokenizer", "ByteLevel")):
        other = byte_level if step == "ByteLevel" else {"type": step}
        steps = {"type": "Sequence", "pretokenizers": [other, byte_level]}
        loaded = changed(tokenizer_dir, tmp_path / str(number), pre_tokenizer=steps)
        assert loaded.byte_lengths is None


def test_the_same_text_has_the_same_tokens_whatever_the_file_asks_for(
    tokenizer: Tokenizer, tokenizer_dir: Path, tmp_path: Path
) -> None:
    model = json.loads((tokenizer_dir / "tokenizer.json").read_text())["model"]
    loaded = changed(tokenizer_dir, tmp_path / "a", model=model | {"dropout": 0.9})
    assert loaded.encode("the ship sailed") == tokenizer.encode("the ship sailed")
    cut = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    same = changed(tokenizer_dir, tmp_path / "b", truncation=cut)
    assert same.fingerprint == tokenizer.fingerprint


def test_an_end_of_text_that_is_no_token_is_named(folders: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(folders["named"], tmp_path, dirs_exist_ok=True)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|stop|>"}))
    with pytest.raises(DataError, match=r"calls '<\|stop\|>' .* has no such token"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize("kind", ["named", "pieces", "unigram"])
def test_inside_a_document_nothing_marks_a_beginning(folders: dict[str, Path], kind: str) -> None:
    loaded = Tokenizer.load(folders[kind])
    assert loaded.marks_beginnings == (kind != "named")
    whole = [*loaded.encode("The ship\n"), *loaded.encode_inside("sailed past")]
    assert whole == loaded.encode("The ship\nsailed past")


def test_a_family_s_ids_begin_and_end_no_text(folders: dict[str, Path], tmp_path: Path) -> None:
    shutil.copyfile(folders["named"] / "tokenizer.json", tmp_path / "tokenizer.json")
    # As an export of a folder whose config.json is silent: the family's, which nobody meant.
    (tmp_path / "config.json").write_text(json.dumps({"bos_token_id": 1, "eos_token_id": 2}))
    (tmp_path / "generation_config.json").write_text("{}")
    assert Tokenizer.load(tmp_path).eos_id is None
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|begin|>"}))
    loaded = Tokenizer.load(tmp_path)
    assert (loaded.end_ids, loaded.encode_prompt("")) == ({0}, [0])


@pytest.mark.parametrize("said", [{}, {"bos_token_id": 0}, {"bos_token_id": None}])
def test_a_store_of_a_model_s_tokenizer_begins_after_an_end(
    folders: dict[str, Path], tmp_path: Path, said: dict[str, Any]
) -> None:
    shutil.copytree(folders["named"], tmp_path / "source")
    config = {"model_type": "llama", "eos_token_id": [1, 7], **said}
    (tmp_path / "source" / "config.json").write_text(json.dumps(config))
    Tokenizer.load(tmp_path / "source").save(tmp_path / "copy")
    begins = None if "bos_token_id" in said and said["bos_token_id"] is None else 1
    for ids in (special_ids(tmp_path / "copy"), generation_config(tmp_path / "copy")):
        assert ids == {"bos_token_id": begins, "eos_token_id": [1, 7], "pad_token_id": None}
    assert Tokenizer.load(tmp_path / "copy").encode_prompt("") == [1]
