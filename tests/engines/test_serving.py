"""What servers of OpenAI's API answer, asked by its client: our own greedy text.

`make engines` runs these, in an environment that has the engines; elsewhere they are skipped.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from teleflm.checkpoint.export import export
from teleflm.config.model import ModelConfig
from teleflm.data.tokenizer_training import train_tokenizer
from teleflm.model.init import initial_state
from tests.conftest import Command
from tests.engines.serving import free_port, serving
from tests.growing import opened_of

pytestmark = pytest.mark.engines
openai = pytest.importorskip("openai", reason="`make engines` has the client and the servers")

MODEL = ModelConfig.model_validate(
    {
        "vocab_size": 300,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "max_position_embeddings": 256,
        "input_mult": 3.0,
        "output_mult": 0.7,
    }
)
TEMPLATE = (
    "{% for message in messages %}<s>{{ message.role }}: {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
PROMPTS = ["A ship sailed", "那船过了", "  In 1849, "]
NEW = 24


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Exports of a random model whose next tokens are far apart, by format."""
    root = tmp_path_factory.mktemp("served")
    (root / "text.txt").write_text("A ship sailed past the harbour. 那船过了旧港。\n" * 20)
    train_tokenizer([root / "text.txt"], MODEL.vocab_size, root / "tokenizer")
    settings = root / "tokenizer" / "tokenizer_config.json"
    content = json.loads(settings.read_text())
    settings.write_text(json.dumps({**content, "chat_template": TEMPLATE}))
    torch.manual_seed(0)
    state = {
        name: weight + (0.15 * torch.randn_like(weight) if weight.ndim == 2 else 0)
        for name, weight in initial_state(MODEL, seed=1).items()
    }
    source = opened_of(MODEL, state, root / "tokenizer")
    for kind in ("granite", "llama", "gguf"):
        export(source, root / kind, kind)
    return {kind: root / kind for kind in ("granite", "llama", "gguf")}


@pytest.fixture(scope="module", params=["granite", "llama"])
def transformers_server(
    request: pytest.FixtureRequest, folders: dict[str, Path], tmp_path_factory: Any
) -> Iterator[tuple[str, str]]:
    """`transformers serve` of an export: its address and the model's name."""
    pytest.importorskip("uvicorn", reason="transformers[serving] is not installed")
    port, folder = free_port(), str(folders[request.param])
    program = Path(sys.executable).with_name("transformers")
    command = [program, "serve", folder, "--port", str(port), "--host", "127.0.0.1"]
    command += ["--device", "cpu", "--dtype", "float32"]
    log = tmp_path_factory.mktemp("transformers") / "log"
    with serving(command, port, log) as address:
        yield address, folder


@pytest.fixture(scope="module")
def llama_server(
    folders: dict[str, Path], tmp_path_factory: Any
) -> Iterator[tuple[str, str]]:
    """llama.cpp's server by its Python package, with an fp32 cache."""
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    port = free_port()
    command = [sys.executable, "-m", "llama_cpp.server", "--model", folders["gguf"] / "model.gguf"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--n_ctx", "256"]
    command += ["--type_k", str(llama_cpp.GGML_TYPE_F32), "--type_v", str(llama_cpp.GGML_TYPE_F32)]
    with serving(command, port, tmp_path_factory.mktemp("llama") / "log") as address:
        yield address, "model"


def asked(server: tuple[str, str], prompt: str, *, stream: bool) -> str:
    address, model = server
    client = openai.OpenAI(base_url=address, api_key="none")
    answer = client.completions.create(
        model=model, prompt=prompt, max_tokens=NEW, temperature=0.0, stream=stream
    )
    if not stream:
        text: str = answer.choices[0].text
        return text
    return "".join(chunk.choices[0].text for chunk in answer if chunk.choices)


@pytest.fixture(scope="module")
def ours(folders: dict[str, Path]) -> dict[str, str]:
    """Our own greedy text behind each prompt."""
    from teleflm.checkpoint.open import open_state
    from teleflm.data.tokenizer import Tokenizer
    from teleflm.generation.generate import generate

    source = open_state(folders["granite"])
    tokenizer, network = Tokenizer.load(folders["granite"]), source.network()
    absent = tokenizer.absent_ids(MODEL.vocab_size)
    prompts = [tokenizer.encode_prompt(prompt) for prompt in PROMPTS]
    written = generate(network, prompts, NEW, ends=tokenizer.end_ids, absent=absent)
    return {
        prompt: tokenizer.decode(ids + new).removeprefix(prompt)
        for prompt, ids, new in zip(PROMPTS, prompts, written, strict=True)
    }


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
    assert asked(llama_server, prompt, stream=stream) == ours[prompt]
