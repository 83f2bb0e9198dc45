"""Chats as transformers writes and cuts them."""

import json
from pathlib import Path

import pytest

from teleflm.data.chat_template import ChatTemplate, for_engines
from teleflm.errors import DataError
from tests.data.chats import MARKED
from tests.foreign import byte_level, write_tokenizer

SOURCE = (
    "{{ bos_token }}{% for message in messages %}{% if message.role == 'tool' %}"
    "{{ raise_exception('no tools') }}{% endif %}<|im_start|>{{ message.role }}\n"
    "{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CHAT = [
    {"role": "system", "content": "Be brief & <kind>."},
    {"role": "user", "content": "那船? </s> "},
]
BEGUN = [*CHAT, {"role": "assistant", "content": "It saile"}]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    special = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    return write_tokenizer(
        tmp_path / "model", byte_level(special), bos_token="<s>", eos_token="</s>"
    )


@pytest.mark.parametrize("place", ["file", "settings", "several"])
def test_a_chat_is_what_transformers_writes(folder: Path, place: str) -> None:
    from transformers import AutoTokenizer

    if place == "file":
        (folder / "chat_template.jinja").write_text(SOURCE)
    else:
        several = [{"name": "other", "template": "x"}, {"name": "default", "template": SOURCE}]
        settings = json.loads((folder / "tokenizer_config.json").read_text())
        settings["chat_template"] = several if place == "several" else SOURCE
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    theirs, ours = AutoTokenizer.from_pretrained(folder), ChatTemplate(folder)
    asked, begun = ours.prompt(CHAT), ours.begun(BEGUN)
    assert asked == theirs.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True)
    assert begun == theirs.apply_chat_template(BEGUN, tokenize=False, continue_final_message=True)
    assert begun.endswith("It saile")
    assert ours.whole(CHAT) == theirs.apply_chat_template(CHAT, tokenize=False)


def test_engines_have_a_template_that_marks_nothing_and_writes_the_same(folder: Path) -> None:
    marked = MARKED.replace("{% generation", "{%- generation").replace(
        "generation %}", "generation-%}"
    )
    for source in (MARKED, marked, SOURCE):
        (folder / "chat_template.jinja").write_text(source)
        ours = ChatTemplate(folder)
        assert ours.marks_replies is (source != SOURCE)
        (folder / "chat_template.jinja").write_text(for_engines(source))
        plain = ChatTemplate(folder)
        assert not plain.marks_replies
        assert plain.whole(BEGUN) == ours.whole(BEGUN) and plain.prompt(CHAT) == ours.prompt(CHAT)


def test_what_cannot_be_applied_is_named(folder: Path) -> None:
    with pytest.raises(DataError, match="no chat template there"):
        ChatTemplate(folder)
    file = folder / "chat_template.jinja"
    file.write_text(SOURCE)
    with pytest.raises(DataError, match=r"model: its chat template cannot be .*no tools"):
        ChatTemplate(folder).prompt([{"role": "tool", "content": "x"}])
    for source in ("{% for %}", "{{ 1 / 0 }}", "{{ range(10 ** 9) }}"):
        file.write_text(source)
        with pytest.raises(DataError, match="its chat template cannot be applied"):
            ChatTemplate(folder).prompt(CHAT)
    # A template is data: no way leads out of its sandbox.
    file.write_text("{{ ''.__class__.__mro__ }}")
    with pytest.raises(DataError, match="unsafe"):
        ChatTemplate(folder).prompt(CHAT)
