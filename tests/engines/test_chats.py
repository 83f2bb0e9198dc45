"""llama.cpp's ids of a conversation, by the template in a GGUF file: ours.

`make engines` runs this; elsewhere it is skipped.
"""

from pathlib import Path
from typing import Any

import pytest

from teleflm.checkpoint.export import export
from teleflm.data.chat_tokenizer import outfit
from teleflm.data.conversation import Conversations
from tests.chatting import MODEL
from tests.data.chats import CHATML, HEADERS, INSTRUCTIONS, MARKED, made_up
from tests.growing import fresh_state, opened_of

pytestmark = pytest.mark.engines
llama_cpp = pytest.importorskip("llama_cpp", reason="`make engines` has it")

TEMPLATES = {"chatml": CHATML, "headers": HEADERS, "instructions": INSTRUCTIONS, "marked": MARKED}


@pytest.mark.parametrize("name", ["tele-flm", "tele-flm-published", *TEMPLATES])
def test_llama_cpp_has_our_ids(name: str, tokenizer_dir: Path, tmp_path: Path) -> None:
    from llama_cpp.llama_chat_format import Jinja2ChatFormatter

    template = name
    if name in TEMPLATES:
        template = str(tmp_path / "template.jinja")
        Path(template).write_text(TEMPLATES[name])
    ready = outfit(tokenizer_dir, template, _made(tmp_path / "tokenizer"))
    state = fresh_state(MODEL)
    opened = opened_of(MODEL, state.weights, tmp_path / "tokenizer")
    export(opened, tmp_path / "gguf", "gguf")
    engine: Any = llama_cpp.Llama(str(tmp_path / "gguf/model.gguf"), vocab_only=True, verbose=False)
    metadata = engine.metadata
    names = {
        key: engine.detokenize([int(metadata[f"tokenizer.ggml.{key}_token_id"])], special=True)
        for key in ("bos", "eos")
    }
    formatter = Jinja2ChatFormatter(
        template=metadata["tokenizer.chat_template"],
        bos_token=names["bos"].decode(),
        eos_token=names["eos"].decode(),
    )
    ours = Conversations(tmp_path / "tokenizer", ready.tokenizer)
    for talk in made_up(40, seed=11):
        asked = talk[:-1]
        written = formatter(messages=asked)
        ids = engine.tokenize(written.prompt.encode(), add_bos=False, special=True)
        assert ids == ours.prompt(asked), asked
    if ready.stop is not None:
        ends = {int(metadata.get(f"tokenizer.ggml.{key}_token_id", -1)) for key in ("eos", "eot")}
        assert ready.tokenizer.id_of(ready.stop) in ends


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
