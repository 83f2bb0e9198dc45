"""Models with tokenizers and special ids of other makers, the whole way through the verbs."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml

from teleflm.data.store import TokenStore
from teleflm.data.tokenizer import Tokenizer
from tests.conftest import Command
from tests.foreign import TEXTS, foreign

# Rows that no tokenizer here has tokens for, as padding of the embedding.
ROWS = 384


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return foreign(tmp_path_factory.mktemp("foreign"))


def model_folder(folder: Path, **ids: Any) -> Path:
    """A small Llama with these special ids in its config.json."""
    torch.manual_seed(5)
    config = transformers.LlamaConfig(
        vocab_size=ROWS,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        initializer_range=0.3,
        **ids,
    )
    network = transformers.LlamaForCausalLM(config)
    with torch.no_grad():
        # The likeliest tokens are padding.
        network.lm_head.weight[360:] *= 4
    network.save_pretrained(folder)
    (folder / "generation_config.json").unlink()
    return folder


def ids_in(folder: Path) -> list[dict[str, Any]]:
    """The special ids that config.json and generation_config.json name."""
    files = (folder / "config.json", folder / "generation_config.json")
    contents = [json.loads(file.read_text()) for file in files]
    return [
        {key: value for key, value in content.items() if key.endswith("token_id")}
        for content in contents
    ]


def run_yaml(path: Path, **fields: Any) -> Path:
    training = {"steps": 2, "global_batch": 2, "dtype": "fp32"}
    content = {"run_dir": str(path.parent / "run"), "training": training, **fields}
    content["data"]["sequence_length"] = 16
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.parametrize("kind", ["named", "pieces"])
def test_import_train_grow_export_and_transformers(
    tokenizers: dict[str, Path], kind: str, tmp_path: Path, teleflm: Command
) -> None:
    folder = model_folder(
        tmp_path / "source", bos_token_id=0, eos_token_id=[1, 7], pad_token_id=None
    )
    shutil.copytree(tokenizers[kind], folder, dirs_exist_ok=True)
    settings = {"do_sample": True, "top_p": 0.9, "eos_token_id": [1, 7, 8]}
    (folder / "generation_config.json").write_text(json.dumps(settings))
    (tmp_path / "text.txt").write_text("".join(TEXTS))
    evaluation = {"prompts": ["The ship", ""], "sample_tokens": 4}
    run = run_yaml(
        tmp_path / "run.yaml",
        start_from=str(tmp_path / "imported"),
        data={"path": str(tmp_path / "store")},
        evaluation=evaluation,
    )
    wider = tmp_path / "wider.yaml"
    wider.write_text("hidden_size: 48\nnum_attention_heads: 6\nnum_hidden_layers: 3\n")
    for command in (
        (
            "data",
            "prepare",
            "--tokenizer",
            folder,
            "--out",
            tmp_path / "store",
            tmp_path / "text.txt",
        ),
        ("import", folder, tmp_path / "imported"),
        ("train", run),
        ("grow", tmp_path / "run", tmp_path / "grown", "--to", wider, "--ramp", 3),
        ("export", tmp_path / "grown", tmp_path / "out", "--format", "llama"),
    ):
        done = teleflm(*command)
        assert done.code == 0, done.err
    config = {"bos_token_id": 0, "eos_token_id": [1, 7], "pad_token_id": None}
    assert ids_in(tmp_path / "out") == [config, {"eos_token_id": [1, 7, 8]}]
    written = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert (written["do_sample"], written["top_p"]) == (True, 0.9)

    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    network: Any = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    inputs = theirs("The ship", return_tensors="pt")
    absent = Tokenizer.load(folder).absent_ids(ROWS)
    assert len(absent) >= ROWS - 355
    options: dict[str, Any] = {
        "do_sample": False,
        "max_new_tokens": 8,
        "top_p": None,
        "suppress_tokens": absent,
    }
    output = network.generate(**inputs, **options)[0]
    ours = teleflm("generate", tmp_path / "out", "The ship", "--max-new-tokens", 8)
    assert ours.out == f"{theirs.decode(output, skip_special_tokens=True)}\n"

    store = TokenStore(tmp_path / "store")
    opening, eos = store.tokenizer.opening, store.tokenizer.eos_id
    for part in (store.train("text"), store.held_out("text")):
        for number in range(len(part)):
            document = part.document(number).tolist()
            assert document[: len(opening)] == opening and document[-1] == eos
            assert document.count(eos) == 1


def test_a_qwen3_like_folder_goes_the_whole_way(
    tokenizers: dict[str, Path], tmp_path: Path, teleflm: Command
) -> None:
    torch.manual_seed(5)
    config = transformers.Qwen3Config(
        vocab_size=ROWS,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=64,
        initializer_range=0.3,
        tie_word_embeddings=True,
        eos_token_id=1,
    )
    source, text = tmp_path / "qwen3", tmp_path / "text.txt"
    transformers.Qwen3ForCausalLM(config).save_pretrained(source)
    shutil.copytree(tokenizers["named"], source, dirs_exist_ok=True)
    text.write_text("".join(TEXTS))
    run = run_yaml(
        tmp_path / "run.yaml",
        start_from=str(tmp_path / "grown"),
        data={"path": str(tmp_path / "store")},
        optimizer={"learning_rate": 1e-5, "matrix_learning_rate": 1e-5},
    )
    wider = tmp_path / "wider.yaml"
    wider.write_text("hidden_size: 48\nnum_attention_heads: 8\nnum_hidden_layers: 3\n")
    grown = tmp_path / "grown"
    for command in (
        ("import", source, tmp_path / "imported"),
        ("grow", tmp_path / "imported", grown, "--to", wider, "--ramp", 9, "--place", "0"),
        ("verify", tmp_path / "imported", grown),
        ("data", "prepare", "--tokenizer", source, "--out", tmp_path / "store", text),
        ("train", run),
        ("export", tmp_path / "run", tmp_path / "out", "--format", "qwen3"),
    ):
        done = teleflm(*command)
        assert done.code == 0, done.err
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    network: Any = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert type(network).__name__ == "Qwen3ForCausalLM" and network.config.tie_word_embeddings
    output = network.generate(
        **theirs("The ship", return_tensors="pt"),
        do_sample=False,
        max_new_tokens=12,
        suppress_tokens=Tokenizer.load(source).absent_ids(ROWS),
    )[0]
    ours = teleflm("generate", tmp_path / "run", "The ship", "--max-new-tokens", 12)
    assert ours.out == f"{theirs.decode(output, skip_special_tokens=True)}\n"
    assert len(set(output.tolist())) > 4, "a text that says little"


def test_ids_travel_without_a_tokenizer(tmp_path: Path, teleflm: Command) -> None:
    folder = model_folder(tmp_path / "a", bos_token_id=9, eos_token_id=[8, 7], pad_token_id=None)
    expected = {"bos_token_id": 9, "eos_token_id": [8, 7], "pad_token_id": None}
    assert teleflm("export", folder, tmp_path / "b", "--format", "llama").code == 0
    assert ids_in(tmp_path / "b") == [expected, expected]
    assert teleflm("import", tmp_path / "b", tmp_path / "c").code == 0
    assert teleflm("export", tmp_path / "c", tmp_path / "d", "--format", "granite").code == 0
    assert ids_in(tmp_path / "d") == [expected, expected]


@pytest.mark.parametrize("generation", [None, {}, {"eos_token_id": [5, 6], "top_k": 9}])
@pytest.mark.parametrize("said", [{}, {"bos_token_id": None}, {"eos_token_id": 8}])
def test_transformers_finds_in_an_export_what_it_found_in_the_source(
    tmp_path: Path, teleflm: Command, said: dict[str, Any], generation: dict[str, Any] | None
) -> None:
    folder = model_folder(tmp_path / "a")
    content = json.loads((folder / "config.json").read_text())
    silent = {key: value for key, value in content.items() if not key.endswith("token_id")}
    (folder / "config.json").write_text(json.dumps({**silent, **said}))
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    assert teleflm("import", folder, tmp_path / "b").code == 0
    assert teleflm("export", tmp_path / "b", tmp_path / "c", "--format", "granite").code == 0
    found = []
    for place in (folder, tmp_path / "c"):
        network: Any = transformers.AutoModelForCausalLM.from_pretrained(place)
        keys = ("bos_token_id", "eos_token_id", "pad_token_id")
        wholes = (network.config, network.generation_config)
        found.append([getattr(whole, key) for whole in wholes for key in keys])
    assert found[0] == found[1]
    assert found[0][:2] == [said.get("bos_token_id", 1), said.get("eos_token_id", 2)]


def test_a_model_of_sentencepiece_alone_is_named_with_the_way_out(
    tmp_path: Path, teleflm: Command
) -> None:
    folder = model_folder(tmp_path / "a")
    (folder / "tokenizer.model").write_bytes(b"pieces")
    (tmp_path / "text.txt").write_text("".join(TEXTS))
    prepare = ("data", "prepare", "--tokenizer", folder, "--out", tmp_path / "o")
    for command in (("generate", folder, "The ship"), (*prepare, tmp_path / "text.txt")):
        done = teleflm(*command)
        assert done.code == 2
        assert "a/tokenizer.json: no such file, and tokenizer.model beside it" in done.err
        assert f"save_pretrained({str(folder)!r})" in done.err
    imported = teleflm("import", folder, tmp_path / "c")
    assert imported.code == 0
    assert "without a tokenizer" in imported.out and "tokenizer.model beside it" in imported.err
    # It stays with the model, to be converted later.
    assert (tmp_path / "c" / "tokenizer" / "tokenizer.model").read_bytes() == b"pieces"


def test_no_ids_are_made_up(tmp_path: Path, teleflm: Command) -> None:
    nothing = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    folder = model_folder(tmp_path / "a", **nothing)
    assert teleflm("export", folder, tmp_path / "b", "--format", "llama").code == 0
    assert ids_in(tmp_path / "b") == [nothing, nothing]
    read = transformers.AutoConfig.from_pretrained(tmp_path / "b")
    assert (read.bos_token_id, read.eos_token_id, read.pad_token_id) == (None, None, None)


@pytest.mark.parametrize("verb", ["import", "export", "generate", "grow"])
def test_a_tokenizer_of_another_vocabulary(
    tokenizers: dict[str, Path], verb: str, tmp_path: Path, teleflm: Command
) -> None:
    folder = model_folder(tmp_path / "model")
    shutil.copytree(tokenizers["named"], folder, dirs_exist_ok=True)
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["vocab"]["far"] = 999
    (folder / "tokenizer.json").write_text(json.dumps(content))
    more = {"generate": ("text",), "grow": (tmp_path / "o", "--to", folder)}
    done = teleflm(verb, folder, *more.get(verb, (tmp_path / "o",)))
    assert done.code == 2
    assert "tokenizer.json: has token ids up to 999 and the model a vocabulary of 384" in done.err
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ({"eos_token_id": [1, 384]}, "eos_token_id 384 is outside the model's vocabulary of 384"),
        ({"pad_token_id": -1}, "pad_token_id is -1, not a token id"),
    ],
)
def test_ids_out_of_range(
    tmp_path: Path, teleflm: Command, ids: dict[str, Any], message: str
) -> None:
    folder = model_folder(tmp_path / "model")
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**content, **ids}))
    done = teleflm("import", folder, tmp_path / "out")
    assert done.code == 2
    assert f"config.json: {message}" in done.err
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_that_names_no_end(
    tokenizers: dict[str, Path], tmp_path: Path, teleflm: Command
) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copyfile(tokenizers["named"] / "tokenizer.json", bare / "tokenizer.json")
    (tmp_path / "text.txt").write_text("".join(TEXTS))
    done = teleflm(
        "data", "prepare", "--tokenizer", bare, "--out", tmp_path / "o", tmp_path / "text.txt"
    )
    assert done.code == 2
    assert "names no token that ends a text" in done.err and "tokenizer_config.json" in done.err
