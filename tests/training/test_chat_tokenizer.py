"""The template, its tokens and its stop token on their way from a chat store into an export."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from teleflm.checkpoint.export import export
from teleflm.checkpoint.open import open_state
from teleflm.checkpoint.save import save_checkpoint
from teleflm.config.formats import ExportKind
from teleflm.data.chat_store import prepare_chat
from teleflm.data.chat_tokenizer import goes_on_from
from teleflm.data.conversation import Conversations
from teleflm.data.gguf_tokenizer import tokenizer_keys
from teleflm.data.mixture import open_domains
from teleflm.data.store import TokenStore
from teleflm.data.tele_flm_chat import TEMPLATES
from teleflm.data.tokenizer import Tokenizer
from teleflm.errors import ConfigError, DataError
from teleflm.training.loop import train
from teleflm.training.start import resolve_config
from tests.data.chats import CHATML, HEADERS, made_up
from tests.foreign import byte_level, write_tokenizer
from tests.growing import fresh_state
from tests.tiny import MODEL, run_fields


@pytest.fixture(scope="module")
def talks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("talks") / "talks.jsonl"
    file.write_text("".join(json.dumps({"messages": talk}) + "\n" for talk in made_up(60, seed=8)))
    return file


def checkpoint(folder: Path, rows: int, tokenizer: Path) -> Path:
    model = MODEL.model_copy(update={"vocab_size": rows})
    save_checkpoint(folder, fresh_state(model), None, tokenizer)
    return folder


def trained(store: Path, source: Path, out: Path, steps: int = 1) -> Path:
    fields = run_fields(
        store,
        out,
        start_from=str(source),
        training={"steps": steps},
        data={"sequence_length": 64},
    )
    del fields["model"]
    return train(resolve_config(fields, "run"))


def eos_of(folder: Path) -> Any:
    return json.loads((folder / "generation_config.json").read_text())["eos_token_id"]


def test_an_export_of_a_tuned_model_writes_chats_as_its_training_did(
    talks: Path, tokenizer_dir: Path, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer, GenerationConfig

    # Spare tokens take the names of ChatML's marks, so that the model needs no other rows.
    (tmp_path / "chatml.jinja").write_text(CHATML)
    store = prepare_chat([talks], tokenizer_dir, tmp_path / "store", f"{tmp_path}/chatml.jinja")
    assert store.vocab_size == 424
    source = checkpoint(tmp_path / "source", 424, tokenizer_dir)
    run = trained(store.path, source, tmp_path / "run")
    end = store.tokenizer.id_of("<|im_end|>")
    kinds: tuple[ExportKind, ...] = ("granite", "llama")
    for kind in kinds:
        out = tmp_path / kind
        export(open_state(run), out, kind)
        settings = json.loads((out / "tokenizer_config.json").read_text())
        assert "split_special_tokens" not in settings
        assert (out / "chat_template.jinja").read_text() == CHATML
        assert eos_of(out) == GenerationConfig.from_pretrained(out).eos_token_id == [2, end]
        theirs, ours = AutoTokenizer.from_pretrained(out), Tokenizer.load(out)
        assert ours.end_ids == {2, end}
        for talk in made_up(20, seed=9):
            ids = Conversations(out, ours).encode(talk).ids
            assert ids == Conversations(store.path, store.tokenizer).encode(talk).ids
            assert ids == theirs.apply_chat_template(talk, return_dict=False)
    keys = tokenizer_keys(run / "tokenizer", 424)
    assert keys["tokenizer.chat_template"] == CHATML
    assert (keys["tokenizer.ggml.eos_token_id"], keys["tokenizer.ggml.eot_token_id"]) == (2, end)


def test_spare_rows_of_an_embedding_are_taken_and_others_are_missed(
    talks: Path, tmp_path: Path
) -> None:
    plain = write_tokenizer(
        tmp_path / "plain", byte_level(["<s>", "</s>"], 300), bos_token="<s>", eos_token="</s>"
    )
    # What the model says of generation itself is not lost.
    (plain / "generation_config.json").write_text('{"eos_token_id": 1, "temperature": 0.5}')
    store = prepare_chat([talks], plain, tmp_path / "store", "tele-flm")
    assert store.vocab_size == 304
    spare = checkpoint(tmp_path / "spare", 304, plain)
    run = trained(store.path, spare, tmp_path / "run")
    written = json.loads((run / "tokenizer" / "generation_config.json").read_text())
    assert written == {"eos_token_id": [1, 303], "temperature": 0.5}
    assert (run / "tokenizer" / "chat_template.jinja").read_text() == TEMPLATES["tele-flm"]
    # The run goes on with the tokenizer that it has now.
    trained(store.path, spare, run, steps=2)
    narrow = checkpoint(tmp_path / "narrow", 303, plain)
    with pytest.raises(
        ConfigError, match=r"303 is less than .* 304; the embedding of .*narrow has"
    ):
        trained(store.path, narrow, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_only_tokens_that_waited_for_it_may_have_changed(
    talks: Path, tokenizer_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "headers.jinja").write_text(HEADERS)
    store = prepare_chat([talks], tokenizer_dir, tmp_path / "store", f"{tmp_path}/headers.jinja")
    before = Tokenizer.load(tokenizer_dir)
    assert goes_on_from(store.tokenizer, before) and goes_on_from(before, before)
    assert not goes_on_from(before, store.tokenizer)
    text = (tokenizer_dir / "tokenizer.json").read_text()
    for number, (old, new) in enumerate(
        [('"<_bot>"', '"<_not>"'), ('"ignore_merges": false', '"ignore_merges": true')]
    ):
        assert old in text
        other = shutil.copytree(tokenizer_dir, tmp_path / str(number))
        (other / "tokenizer.json").write_text(text.replace(old, new))
        assert not goes_on_from(store.tokenizer, Tokenizer.load(other))


def test_stores_of_one_run_have_one_template(
    talks: Path, store: TokenStore, tokenizer_dir: Path, tmp_path: Path
) -> None:
    one = prepare_chat([talks], tokenizer_dir, tmp_path / "one", "tele-flm")
    other = prepare_chat([talks], tokenizer_dir, tmp_path / "other", "tele-flm-published")
    text = (str(store.path), 1.0)
    paths = {"english": text, "talks": (str(one.path), 1.0)}
    mixture = open_domains(paths, tokenizer_dir)
    assert mixture.trains_on_chats and not open_domains(store.path).trains_on_chats
    assert mixture.tokenizer is not None
    mixture.tokenizer.save(tmp_path / "saved")
    assert (tmp_path / "saved" / "chat_template.jinja").read_text() == TEMPLATES["tele-flm"]
    with pytest.raises(DataError, match=r"other was made with another chat template than .*one;"):
        open_domains({**paths, "more": (str(other.path), 1.0)})
