"""What servers of OpenAI's API answer, asked by its client: our own greedy text.

`make engines` runs these, in an environment that has the engines; elsewhere they are skipped.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from teleflm.checkpoint.export import export
from teleflm.checkpoint.open import open_state
from teleflm.config.formats import ExportKind
from teleflm.data.tokenizer import Tokenizer
from teleflm.generation.chat import Chat
from teleflm.generation.decoder import IncrementalDecoder
from teleflm.generation.text import Writer
from tests.chatting import chat_model
from tests.engines.serving import free_port, serving

pytestmark = pytest.mark.engines
openai = pytest.importorskip("openai", reason="`make engines` has the client and the servers")

KINDS: tuple[ExportKind, ...] = ("granite", "llama", "gguf")
PROMPTS = ["A ship sailed", "那船过了", "  In 1849, "]
NEW = 20


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Exports of a random model whose next tokens are far apart, by format."""
    root = tmp_path_factory.mktemp("served")
    source = chat_model(root)
    for kind in KINDS:
        export(source, root / kind, kind)
    return {kind: root / kind for kind in KINDS}


@pytest.fixture(scope="module", params=["granite", "llama"])
def transformers_server(
    request: pytest.FixtureRequest, folders: dict[str, Path], tmp_path_factory: Any
) -> Iterator[tuple[str, str]]:
    """`transformers serve` of an export: its address and the model's name."""
    pytest.importorskip("uvicorn", reason="transformers[serving] is not installed")
    port, folder = free_port(), str(folders[request.param])
    program = Path(sys.executable).with_name("transformers")
    command: list[str | Path] = [program, "serve", folder, "--port", str(port)]
    command += ["--host", "127.0.0.1", "--device", "cpu", "--dtype", "float32"]
    log = tmp_path_factory.mktemp("transformers") / "log"
    with serving(command, port, log) as address:
        yield address, folder


@pytest.fixture(scope="module")
def llama_server(folders: dict[str, Path], tmp_path_factory: Any) -> Iterator[tuple[str, str]]:
    """llama.cpp's server by its Python package, with an fp32 cache."""
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    port = free_port()
    command: list[str | Path] = [sys.executable, "-m", "llama_cpp.server", "--model"]
    command += [folders["gguf"] / "model.gguf"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--n_ctx", "256"]
    command += ["--type_k", str(llama_cpp.GGML_TYPE_F32), "--type_v", str(llama_cpp.GGML_TYPE_F32)]
    with serving(command, port, tmp_path_factory.mktemp("llama") / "log") as address:
        yield address, "model"


# llama-cpp-python's server has 1.1 by default, at temperature 0 too.
PLAIN = {"repeat_penalty": 1.0}
CHAT = [{"role": "user", "content": "A ship"}]


def asked(server: tuple[str, str], prompt: str, *, stream: bool, **more: float) -> str:
    address, model = server
    client = openai.OpenAI(base_url=address, api_key="none")
    answer = client.completions.create(
        model=model, prompt=prompt, max_tokens=NEW, temperature=0.0, stream=stream, extra_body=more
    )
    if not stream:
        text: str = answer.choices[0].text
        return text
    return "".join(chunk.choices[0].text for chunk in answer if chunk.choices)


@pytest.fixture(scope="module")
def ours(folders: dict[str, Path]) -> dict[str, str]:
    """Our own greedy text behind each prompt."""
    tokenizer = Tokenizer.load(folders["granite"])
    decoder = IncrementalDecoder(open_state(folders["granite"]).network())
    writer = Writer(decoder, tokenizer)
    found = writer.write([tokenizer.encode_prompt(prompt) for prompt in PROMPTS], NEW)
    texts = {prompt: each.text for prompt, each in zip(PROMPTS, found, strict=True)}
    assert not any("\ufffd" in text for text in texts.values()), texts
    return texts


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("prompt", PROMPTS)
def test_transformers_serves_our_text(
    transformers_server: tuple[str, str], ours: dict[str, str], prompt: str, stream: bool
) -> None:
    assert asked(transformers_server, prompt, stream=stream) == ours[prompt]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("prompt", PROMPTS)
def test_llama_cpp_serves_our_text(
    llama_server: tuple[str, str], ours: dict[str, str], prompt: str, stream: bool
) -> None:
    assert asked(llama_server, prompt, stream=stream, **PLAIN) == ours[prompt]


@pytest.fixture(scope="module")
def our_answer(folders: dict[str, Path]) -> str:
    tokenizer = Tokenizer.load(folders["granite"])
    decoder = IncrementalDecoder(open_state(folders["granite"]).network())
    chat = Chat(Writer(decoder, tokenizer), folders["granite"], None, NEW)
    answer, _ = chat.ask(CHAT[0]["content"], lambda _: None)
    assert answer is not None
    return answer.text


def chatted(server: tuple[str, str], **more: float) -> str:
    address, model = server
    client = openai.OpenAI(base_url=address, api_key="none")
    answer = client.chat.completions.create(
        model=model, messages=CHAT, max_tokens=NEW, temperature=0.0, extra_body=more
    )
    text: str = answer.choices[0].message.content
    return text


def test_transformers_chats_as_we_do(transformers_server: tuple[str, str], our_answer: str) -> None:
    assert chatted(transformers_server) == our_answer


def test_llama_cpp_chats_as_we_do(llama_server: tuple[str, str], our_answer: str) -> None:
    assert chatted(llama_server, **PLAIN) == our_answer
