"""Chat templates of several families, written for tests, and made-up conversations."""

import random
from pathlib import Path

from teleflm.data.tele_flm_chat import TEMPLATES
from tests.foreign import byte_level, write_tokenizer

Talk = list[dict[str, str]]

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
HEADERS = (
    "{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message.role }}"
    "<|end_header_id|>\n\n{{ message.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
"""As of Llama 3."""
INSTRUCTIONS = (
    "{{ bos_token }}{% for message in messages %}{% if message.role == 'assistant' %} "
    "{{ message.content }}{{ eos_token }}{% else %}[INST] {{ message.content }} [/INST]{% endif %}"
    "{% endfor %}"
)
"""As of Mistral: the instructions' marks are letters."""
MARKED = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.role == 'assistant' %}{% generation %}{{ message.content }}"
    "<|im_end|>\n{% endgeneration %}{% else %}{{ message.content }}<|im_end|>\n{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""ChatML that says itself what replies are, and says the line end behind them is one."""
ALL = {
    **TEMPLATES,
    "chatml": CHATML,
    "headers": HEADERS,
    "instructions": INSTRUCTIONS,
    "marked": MARKED,
}

SPECIAL = [
    *("<unk>", "<s>", "</s>", "<_user>", "<_system>", "<_bot>", "<_end>"),
    *("<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
]


def chat_folder(folder: Path, template: str) -> Path:
    """A tokenizer that has the tokens of all templates, and one of these."""
    write_tokenizer(folder, byte_level(SPECIAL, 360), bos_token="<s>", eos_token="</s>")
    (folder / "chat_template.jinja").write_text(template)
    return folder


_WORDS = [
    "The",
    " ship",
    "那船",
    "\n\n",
    "  ",
    "é",
    "🚢",
    " harbour",
    "<",
    "<s",
    "_bot",
    "1,2",
]


def made_up(count: int, seed: int, marks: bool = False) -> list[Talk]:
    """Conversations of up to four exchanges, half with a system text; some begin and end with white
    space. With `marks` people write special strings too."""
    draw = random.Random(seed)
    words = _WORDS + SPECIAL * marks

    def text() -> str:
        return "".join(draw.choices(words, k=draw.randrange(1, 9)))

    talks = []
    for _ in range(count):
        talk = [{"role": "system", "content": text()}] * draw.randrange(2)
        for _ in range(draw.randrange(1, 5)):
            talk += [{"role": "user", "content": text()}]
            talk += [{"role": "assistant", "content": f"{text()}."}]
        talks.append(talk)
    return talks
