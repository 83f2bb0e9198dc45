"""Conversations as tokens: transformers' own, and which of them count."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from teleflm.data.conversation import Conversations, Encoded
from teleflm.data.tokenizer import Tokenizer
from teleflm.errors import DataError
from tests.data.chats import ALL, CHATML, MARKED, SPECIAL, Talk, chat_folder, made_up
from tests.foreign import pieces, unigram, write_tokenizer

ASKED = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": " Ho"}]
# Together a thousand.
EACH = -(-1000 // len(ALL))

Talks = Callable[[str], tuple[Conversations, Tokenizer, Any]]


@pytest.fixture(scope="module")
def talks(tmp_path_factory: pytest.TempPathFactory) -> Talks:
    """Ours and transformers', by a template's name."""
    from transformers import AutoTokenizer

    def made(name: str) -> tuple[Conversations, Tokenizer, Any]:
        folder = chat_folder(tmp_path_factory.mktemp("chat"), ALL[name])
        tokenizer = Tokenizer.load(folder)
        return Conversations(folder, tokenizer), tokenizer, AutoTokenizer.from_pretrained(folder)

    return made


def counted(encoded: Encoded, tokenizer: Tokenizer) -> list[str]:
    """The stretches that count, as text."""
    found, run = [], list[int]()
    for token, counts in zip([*encoded.ids, 0], [*encoded.counted, False], strict=True):
        if counts:
            run.append(token)
        elif run:
            found.append(tokenizer.decode(run, skip_special_tokens=False))
            run = []
    return found


@pytest.mark.parametrize("name", ALL)
def test_ids_are_those_of_transformers(talks: Talks, name: str) -> None:
    ours, _, theirs = talks(name)
    for talk in made_up(EACH, seed=1):
        ids = theirs.apply_chat_template(talk, return_dict=False)
        assert ours.encode(talk).ids == ids, talk
        asked = theirs.apply_chat_template(talk[:-1], return_dict=False, add_generation_prompt=True)
        assert ours.prompt(talk[:-1]) == asked, talk


ENDS = {
    "tele-flm": "<_end>",
    "tele-flm-published": None,
    "chatml": "<|im_end|>",
    "headers": "<|eot_id|>",
    "instructions": "</s>",
    "marked": "<|im_end|>",
}


@pytest.mark.parametrize("name", ALL)
def test_replies_and_their_ends_count_and_nothing_else(talks: Talks, name: str) -> None:
    ours, tokenizer, _ = talks(name)
    end = ENDS[name] or ""
    assert ours.stop == (tokenizer.id_of(end) if end else None)
    for talk in made_up(60, seed=2, marks=True):
        replies = [each["content"] for each in talk if each["role"] == "assistant"]
        written = [text.strip() if name == "headers" else text for text in replies]
        if name == "instructions":
            written = [f" {text}" for text in written]
        assert counted(ours.encode(talk), tokenizer) == [f"{text}{end}" for text in written]


@pytest.mark.parametrize("name", ALL)
def test_what_somebody_writes_is_no_mark(talks: Talks, name: str) -> None:
    ours, tokenizer, _ = talks(name)
    special = tokenizer.special_ids
    for mark in SPECIAL:
        clean = [{**each, "content": f"{each['content']}x"} for each in ASKED]
        spoken = [{**each, "content": f"{each['content']}{mark}"} for each in ASKED]
        plain, marked = ours.encode(clean), ours.encode(spoken)
        assert [i for i in marked.ids if i in special] == [i for i in plain.ids if i in special]
        text = tokenizer.decode(marked.ids, skip_special_tokens=False)
        assert text == tokenizer.decode(plain.ids, skip_special_tokens=False).replace("x", mark)
        assert marked.bytes == len(text.encode())
        # Cut at the template's marks, each stretch has the tokens that it has as text.
        assert all(token in marked.ids for token in tokenizer.encode(f"Hi{mark}"))


def test_a_mark_inside_another_is_hidden_too(tmp_path: Path) -> None:
    from tests.foreign import byte_level

    special = ["</s>", "<|im_start|>", "<|im_end|>", "<a<b>", "<b>"]
    folder = write_tokenizer(tmp_path, byte_level(special, 340), eos_token="</s>")
    (folder / "chat_template.jinja").write_text(CHATML)
    tokenizer = Tokenizer.load(folder)
    ours = Conversations(folder, tokenizer)
    marks = [1, 2, 1, 2]
    for text in ("<a<b>", "<b>", "<<b>", "<a<a<b>>", "<|im_<|im_end|>end|>"):
        ids = ours.encode([{"role": "user", "content": text}, ASKED[1]]).ids
        assert [token for token in ids if token in tokenizer.special_ids] == marks


@pytest.mark.parametrize("kind", [pieces, unigram])
def test_pieces_of_sentencepiece_are_transformers_too(
    tmp_path: Path, kind: Callable[[], Any]
) -> None:
    from transformers import AutoTokenizer

    names = {"eos_token": "</s>", **({"bos_token": "<s>"} if kind is pieces else {})}
    folder = write_tokenizer(tmp_path, kind(), **names)
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}</s>{% endfor %}"
    prompt = "{% if add_generation_prompt %}assistant: {% endif %}"
    (folder / "chat_template.jinja").write_text(template + prompt)
    tokenizer, theirs = Tokenizer.load(folder), AutoTokenizer.from_pretrained(folder)
    ours = Conversations(folder, tokenizer)
    for talk in made_up(40, seed=3):
        assert ours.encode(talk).ids == theirs.apply_chat_template(talk, return_dict=False)
    for talk in made_up(40, seed=4, marks=True):
        ids = ours.encode(talk).ids
        assert sum(token == tokenizer.eos_id for token in ids) == len(talk), talk


def test_spaces_that_a_tokenizer_cuts_off_the_places_of_its_tokens_count(tmp_path: Path) -> None:
    from tokenizers import processors

    from tests.foreign import byte_level

    # As of many: an offset is without the spaces of its token, and that of a space is empty.
    library = byte_level(SPECIAL, 360)
    library.post_processor = processors.ByteLevel(trim_offsets=True)
    folder = write_tokenizer(tmp_path, library, bos_token="<s>", eos_token="</s>")
    tokenizer = Tokenizer.load(folder)
    talk: Talk = [ASKED[0], {"role": "assistant", "content": "  a\n\n \n b \n  "}]
    for name, end in (("chatml", "<|im_end|>"), ("tele-flm-published", "")):
        (folder / "chat_template.jinja").write_text(ALL[name])
        encoded = Conversations(folder, tokenizer).encode(talk)
        assert counted(encoded, tokenizer) == [f"  a\n\n \n b \n  {end}"]


def test_replies_that_a_template_marks_without_their_end_have_it(tmp_path: Path) -> None:
    short = MARKED.replace("<|im_end|>\n{% endgeneration %}", "{% endgeneration %}<|im_end|>\n")
    folder = chat_folder(tmp_path, short)
    tokenizer = Tokenizer.load(folder)
    ours = Conversations(folder, tokenizer)
    assert counted(ours.encode(ASKED * 2), tokenizer) == [" Ho<|im_end|>"] * 2


def test_a_reply_that_begins_within_a_token_is_told(tmp_path: Path) -> None:
    folder = chat_folder(tmp_path, CHATML.replace("assistant\\n", "assistant"))
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m.content }}{% if m.role == 'assistant' %}</s>{% endif %}"
        "{% endfor %}"
    )
    ours = Conversations(folder, Tokenizer.load(folder))
    talk = [{"role": "user", "content": " h"}, {"role": "assistant", "content": "arbour"}]
    encoded = ours.encode(talk)
    assert encoded.cut == 1
    assert encoded.counted[0]
    assert ours.encode([talk[0], {"role": "assistant", "content": "那"}]).cut == 0


REFUSED = {
    # As of Qwen 3: what an assistant said before the last question is written otherwise.
    "otherwise once message": "{% for m in messages %}<_bot>{{ m.content if m.role == 'user' or "
    "loop.last else '' }}</s>{% endfor %}",
    "otherwise once": CHATML.replace("assistant\n{%", "assistant\nThink: {%"),
    "shows 1 replies of 1, or an empty one": "{% for m in messages if m.role == 'user' %}"
    "{{ m.content }}{% endfor %}",
    "shows 0 replies of 1": "{% for m in messages %}{{ m.content }}{% endfor %}"
    "{% if false %}{% generation %}{% endgeneration %}{% endif %}",
    "cannot be applied .*no": "{{ raise_exception('no') }}",
}


@pytest.mark.parametrize("said", REFUSED)
def test_templates_whose_replies_cannot_be_found_are_refused(tmp_path: Path, said: str) -> None:
    folder = chat_folder(tmp_path, REFUSED[said])
    with pytest.raises(DataError, match=f"mine: its chat template .*{said}"):
        Conversations(folder, Tokenizer.load(folder), "mine").encode(ASKED * 2)


def test_characters_that_stand_for_others_are_refused(talks: Talks) -> None:
    ours, _, _ = talks("chatml")
    talk = [{"role": "user", "content": "\U0010ff00|im_end|>"}, ASKED[1]]
    with pytest.raises(DataError, match=r"U\+10FF00"):
        ours.encode(talk)
