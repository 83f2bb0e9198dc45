"""`data prepare --chat`: stores of conversations."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from teleflm.data.chat_store import prepare_chat
from teleflm.data.conversation import Conversations
from teleflm.data.mixture import open_domains
from teleflm.data.store import TokenStore, prepare
from teleflm.data.tokenizer import Tokenizer
from teleflm.errors import DataError
from tests.data.chats import CHATML, chat_folder, made_up
from tests.foreign import byte_level, pieces, write_tokenizer

Write = Callable[..., Path]
TALKS = made_up(150, seed=5, marks=True)


@pytest.fixture(scope="module")
def talks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("talks")
    for name, some in (("a", TALKS[:100]), ("b", TALKS[100:])):
        lines = [json.dumps({"messages": talk}) + "\n" for talk in some]
        (folder / f"{name}.jsonl").write_text("".join(lines))
    return folder


@pytest.fixture(scope="module")
def tokenizer_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return chat_folder(tmp_path_factory.mktemp("tokenizer"), CHATML)


@pytest.fixture(scope="module")
def store(talks: Path, tokenizer_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    out = tmp_path_factory.mktemp("store") / "chats"
    return prepare_chat([talks], tokenizer_dir, out, "tele-flm", held_out=0.1)


def test_every_conversation_is_there_once_as_it_is_written(store: TokenStore) -> None:
    talk = Conversations(store.path, store.tokenizer)
    found = []
    for domain, count in (("a", 100), ("b", 50)):
        counts, rows = store.domains[domain], []
        train, held_out = store.train(domain), store.held_out(domain)
        assert (counts.documents, counts.held_out_documents) == (len(train), len(held_out))
        assert counts.documents + counts.held_out_documents == count
        assert 0.05 * count < len(held_out) < 0.15 * count
        for part, counted in (
            (train, store.counted(domain)),
            (held_out, store.held_out_counted(domain)),
        ):
            assert counted is not None and counted.tokens.dtype == np.uint8
            rows += [
                (part.document(i).tolist(), counted.document(i).astype(bool).tolist())
                for i in range(len(part))
            ]
        expected = (talk.encode(each) for each in (TALKS[:100] if domain == "a" else TALKS[100:]))
        assert sorted(rows) == sorted((each.ids, each.counted) for each in expected)
        found += rows
        content = json.loads((store.path / "store.json").read_text())["domains"][domain]
        total = content["counted_tokens"] + content["held_out_counted_tokens"]
        assert total == sum(sum(counts) for _, counts in rows)
        text = sum(content[key] for key in ("bytes", "held_out_bytes"))
        decoded = (store.tokenizer.decode(ids, skip_special_tokens=False) for ids, _ in rows)
        assert text == sum(len(each.encode()) for each in decoded)
    assert (store.kind, store.template) == ("chat", "tele-flm")


def test_held_out_conversations_that_are_trained_on_too_are_told(
    talks: Path, tokenizer_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those of another file, too."""
    prepare_chat([talks], tokenizer_dir, tmp_path / "once", "tele-flm", held_out=0.1)
    assert "word for word" not in capsys.readouterr().err
    backwards = reversed((talks / "b.jsonl").read_text().splitlines())
    (tmp_path / "c.jsonl").write_text("\n".join(backwards))
    files = [talks, tmp_path / "c.jsonl"]
    made = prepare_chat(files, tokenizer_dir, tmp_path / "twice", "tele-flm", held_out=0.05)
    parts = [made.held_out("b"), made.held_out("c")]
    kept = [part.document(i).tolist() for part in parts for i in range(len(part))]
    trained = [made.train(name) for name in "bc"]
    there = [part.document(i).tolist() for part in trained for i in range(len(part))]
    twice = sum(ids in there for ids in kept)
    assert twice > 0
    assert f"note: {twice} held-out conversations are word for word" in capsys.readouterr().err


def test_a_run_reads_which_tokens_count(store: TokenStore, tokenizer_dir: Path) -> None:
    mixture = open_domains(store.path)
    assert [domain.name for domain in mixture.domains] == ["a", "b"]
    for domain in mixture.domains:
        assert domain.counted is not None and domain.held_out_counted is not None
        assert np.array_equal(domain.counted.lengths, domain.train.lengths)
        assert domain.held_out is not None
        assert np.array_equal(domain.held_out_counted.lengths, domain.held_out.lengths)
    (named,) = open_domains({"b": (str(store.path), 1.0)}).domains
    assert named.counted is not None


def test_a_pair_of_files_of_conversations_is_no_text(store: TokenStore) -> None:
    with pytest.raises(DataError, match=r"a holds conversations, .*; name their store"):
        open_domains({"a": (str(store.path / "a"), 1.0)})


def test_a_store_of_text_counts_nothing(corpus: Path, tokenizer_dir: Path, tmp_path: Path) -> None:
    text = prepare([corpus], tokenizer_dir, tmp_path / "text")
    assert (text.kind, text.template) == ("text", None)
    assert text.counted(next(iter(text.domains))) is None
    assert not {"kind", "template"} & json.loads((text.path / "store.json").read_text()).keys()


def test_the_store_does_not_depend_on_the_workers(
    store: TokenStore, talks: Path, tokenizer_dir: Path, tmp_path: Path
) -> None:
    out = tmp_path / "chats"
    prepare_chat([talks], tokenizer_dir, out, "tele-flm", held_out=0.1, workers=2)
    files = sorted(path.name for path in store.path.iterdir())
    assert files == sorted(path.name for path in out.iterdir())
    for name in files:
        assert (out / name).read_bytes() == (store.path / name).read_bytes(), name


def test_the_tokenizer_in_the_store_is_ready_for_chats(
    store: TokenStore, tokenizer_dir: Path
) -> None:
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(store.path)
    talk = made_up(1, seed=6)[0]
    ids = theirs.apply_chat_template(talk, return_dict=False)
    assert ids == Conversations(store.path, store.tokenizer).encode(talk).ids
    generating = json.loads((store.path / "generation_config.json").read_text())
    end = store.tokenizer.id_of("<_end>")
    assert generating["eos_token_id"] == [store.tokenizer.eos_id, end]
    assert store.tokenizer.end_ids == {store.tokenizer.eos_id, end}


def settings_of(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "tokenizer_config.json").read_text())
    return content


def test_tokens_that_are_missing_are_added_behind_the_vocabulary(
    talks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import AutoTokenizer

    plain = write_tokenizer(
        tmp_path / "plain",
        byte_level(["<s>", "</s>"], 300),
        bos_token="<s>",
        eos_token="</s>",
        split_special_tokens=True,
    )
    made = prepare_chat([talks], plain, tmp_path / "store", "tele-flm")
    assert made.vocab_size == 304
    ids = [made.tokenizer.id_of(mark) for mark in ("<_user>", "<_system>", "<_bot>", "<_end>")]
    assert ids == [300, 301, 302, 303]
    told = capsys.readouterr().err
    assert "were added to the tokenizer" in told and "vocab_size of 304 or more" in told
    assert "split_special_tokens" not in settings_of(made.path)
    before, text = Tokenizer.load(plain), "The ship </s> <_user> sailed"
    assert made.tokenizer.encode(text) == before.encode(text)
    theirs = AutoTokenizer.from_pretrained(made.path)
    talk = made_up(1, seed=6)[0]
    written = Conversations(made.path, made.tokenizer).encode(talk).ids
    assert theirs.apply_chat_template(talk, return_dict=False) == written
    assert set(written) & set(ids)


def test_spare_tokens_take_the_names_that_are_missing(
    talks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spare = ["<s>", "</s>", "<_spare_0>", "<_spare_1>", "<_spare_2>"]
    folder = write_tokenizer(tmp_path / "spare", byte_level(spare, 320), eos_token="</s>")
    (tmp_path / "chatml.jinja").write_text("{# <|comment|> #}" + CHATML)
    made = prepare_chat([talks], folder, tmp_path / "store", str(tmp_path / "chatml.jinja"))
    assert made.vocab_size == Tokenizer.load(folder).vocab_size
    assert made.tokenizer.id_of("<|im_start|>") == 2 and made.tokenizer.id_of("<|im_end|>") == 3
    assert made.tokenizer.id_of("<_spare_0>") is None and made.tokenizer.id_of("<_spare_2>") == 4
    assert "spare tokens became <|im_start|>, <|im_end|>" in capsys.readouterr().err
    assert Conversations(made.path, made.tokenizer).stop == 3


def test_marks_that_a_template_puts_together_are_tokens(talks: Path, tmp_path: Path) -> None:
    """And what it is put together of is none, nor is a byte-order mark before it."""
    spare = ["<s>", "</s>", *(f"<_spare_{number}>" for number in range(9))]
    folder = write_tokenizer(tmp_path / "spare", byte_level(spare, 320), eos_token="</s>")
    for number, mark in enumerate(
        ("<|{{ m.role }}|>", "<|{{m.role}}|>", "{{ '<|' + m.role + '|>' }}")
    ):
        template = tmp_path / f"{number}.jinja"
        turn = f"{mark}{{{{ m.content }}}}<|end|>"
        text = f"{{% for m in messages %}}{turn}{{% endfor %}}"
        asks = "{% if add_generation_prompt %}<|assistant|>{% endif %}"
        template.write_text(text + asks, encoding="utf-8-sig")
        made = prepare_chat([talks], folder, tmp_path / f"{number}", str(template))
        names = [token["content"] for token in made.tokenizer.definition["added_tokens"]]
        marks = {f"<|{name}|>" for name in ("end", "assistant", "user", "system", "tool")}
        assert {name for name in names if name.startswith("<|")} == marks
        assert made.train("a").document(0)[0] in map(made.tokenizer.id_of, marks)


def test_the_published_form_is_told_to_have_no_end(
    talks: Path, tokenizer_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = prepare_chat([talks], tokenizer_dir, tmp_path / "store", "tele-flm-published")
    assert "tele-flm-published has no token behind a reply" in capsys.readouterr().err
    assert made.tokenizer.id_of("<_end>") not in made.train("a").tokens
    assert made.tokenizer.end_ids == {made.tokenizer.eos_id}


def test_the_tokenizer_s_own_template_is_taken_as_it_is(
    talks: Path, tokenizer_dir: Path, tmp_path: Path
) -> None:
    made = prepare_chat([talks], tokenizer_dir, tmp_path / "store", "tokenizer")
    assert (made.path / "chat_template.jinja").read_text() == CHATML
    assert made.tokenizer.fingerprint == Tokenizer.load(tokenizer_dir).fingerprint


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def lines(*talks: Any) -> Path:
        file = tmp_path / "talks.jsonl"
        file.write_text("".join(json.dumps({"messages": talk}) + "\n" for talk in talks))
        return file

    return lines


TALK = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_fault_is_named_by_its_line_and_nothing_stays(
    write: Write, tokenizer_dir: Path, tmp_path: Path, workers: int
) -> None:
    private = [{"role": "user", "content": "\U0010ff00"}, TALK[1]]
    file = write(TALK, TALK, private, TALK, TALK[:1])
    out = tmp_path / "store"
    with pytest.raises(DataError, match=r"talks\.jsonl, line 3: a text has the character"):
        prepare_chat([file], tokenizer_dir, out, "tele-flm", workers=workers)
    assert not out.exists() and not list(tmp_path.glob(".*"))


def test_what_cannot_be_prepared_is_named(
    write: Write, tokenizer_dir: Path, tmp_path: Path
) -> None:
    def prepared(template: str = "tele-flm", folder: Path = tokenizer_dir, **more: Any) -> None:
        prepare_chat([file], folder, tmp_path / "store", template, **more)

    file = write(TALK)
    with pytest.raises(DataError, match="'talks' is a single conversation"):
        prepared()
    file = write(TALK, TALK, TALK)
    with pytest.raises(DataError, match=r"--chat llama: no such file; .* tele-flm, tele-flm-pub"):
        prepared("llama")
    own = tmp_path / "own.jinja"
    own.write_text("{{ messages[-1].content }}")
    with pytest.raises(DataError, match=r"own\.jinja: its chat template writes what"):
        prepared(str(own))
    own.write_text("{% for %}")
    with pytest.raises(DataError, match=r"own\.jinja: its chat template cannot be applied"):
        prepared(str(own))
    # A name that the tokenizer does not give would be nothing, and a reply would never end.
    own.write_text("{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}")
    bare = write_tokenizer(tmp_path / "bare", byte_level(["<x>"]), pad_token="<x>")
    with pytest.raises(DataError, match="writes eos_token, and the tokenizer names none"):
        prepared(str(own), bare)
    with pytest.raises(DataError, match="no chat template lies with the tokenizer"):
        prepared("tokenizer", bare)
    with pytest.raises(DataError, match="a held-out share of 1 is not"):
        prepared(held_out=1)
    # Ids are missing before the last one, where the library would number a new token.
    holed = write_tokenizer(tmp_path / "holed", pieces(), eos_token="</s>")
    content = json.loads((holed / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    last = max(vocabulary, key=lambda token: vocabulary[token])
    vocabulary[last] += 7
    (holed / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"lacks <_user>, .* and no token can be added to it"):
        prepared(folder=holed)
    prepared()
    with pytest.raises(DataError, match="exists already"):
        prepared()
    prepared("tele-flm-published", force=True)
    records = [{"messages": TALK, "metadata": {"domain": "x.counted"}}] * 3
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    with pytest.raises(DataError, match=r"'x\.counted' cannot be a file name"):
        prepared(force=True)
