"""Which answers are the held-out reply, word for word and to its end."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from teleflm.data.chat_store import prepare_chat
from teleflm.data.mixture import open_domains
from teleflm.evaluation import answers as module
from teleflm.evaluation.answers import Answer, answers
from tests.talks import chat_store
from tests.tiny import MODEL

Write = Callable[[list[int]], list[int]]


@pytest.fixture(scope="module")
def chats(tokenizer_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return chat_store(tmp_path_factory.mktemp("chats"), tokenizer_dir, 8).path


def answered(chats: Path, monkeypatch: pytest.MonkeyPatch, write: Write) -> list[Answer]:
    """By a model that writes so instead of each expected reply."""
    mixture = open_domains(chats)
    (domain,) = mixture.domains
    assert domain.held_out is not None
    talks = [domain.held_out.document(i).tolist() for i in range(len(domain.held_out))]

    def written(network: Any, prompts: Any, *_: Any, **__: Any) -> list[list[int]]:
        rest = ([t[len(p) :] for t in talks if t[: len(p)] == list(p)] for p in prompts)
        return [write(replies[0]) for replies in rest]

    monkeypatch.setattr(module, "generate", written)
    network: Any = type("Network", (), {"config": MODEL})
    return answers(network, mixture, 99, 512)


def test_only_the_reply_itself_is_exact(chats: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = open_domains(chats).tokenizer
    assert tokenizer is not None
    user, end = tokenizer.id_of("<_user>"), tokenizer.id_of("<_end>")
    assert user is not None and end is not None and tokenizer.eos_id is not None
    eos, space = tokenizer.eos_id, tokenizer.encode(" ")
    ways: dict[str, tuple[Write, bool]] = {
        "itself": (lambda reply: reply, True),
        "white space before the end": (lambda reply: [*reply[:-1], *space, end], True),
        "the end of a text": (lambda reply: [*reply[:-1], eos], True),
        "no end": (lambda reply: [*reply[:-1], *space], False),
        "a mark within": (lambda reply: [reply[0], user, *reply[1:]], False),
        "a mark before the end": (lambda reply: [*reply[:-1], user, end], False),
        "nothing": (lambda reply: [end], False),
    }
    for name, (write, exact) in ways.items():
        found = answered(chats, monkeypatch, write)
        assert found and all(answer.is_exact is exact for answer in found), name
        assert all(answer.expected.isdigit() for answer in found)


def test_a_reply_without_a_question_is_not_asked_for(
    chats: Path, tokenizer_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replies = "{% for m in messages if m.role == 'assistant' %}{{ m.content }}<_end>{% endfor %}"
    (tmp_path / "replies.jinja").write_text(replies)
    talks, template = chats.parent / "talks.jsonl", tmp_path / "replies.jinja"
    store = prepare_chat([talks], tokenizer_dir, tmp_path / "store", str(template))
    assert answered(store.path, monkeypatch, list) == []
