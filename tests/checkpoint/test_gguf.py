"""GGUF: what is in the file, and what llama.cpp makes of it, where it is installed."""

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from torch import Tensor

from teleflm.checkpoint.export import export, export_bytes
from teleflm.checkpoint.gguf_format import FILE
from teleflm.checkpoint.open import Opened, open_state
from teleflm.config.formats import ExportDtype
from teleflm.config.gguf import architecture_of
from teleflm.config.model import ModelConfig
from teleflm.data.tokenizer import Tokenizer
from teleflm.data.tokenizer_training import train_tokenizer
from teleflm.errors import CheckpointError, ConfigError
from teleflm.generation.generate import generate
from teleflm.model.init import build_model, initial_state
from tests.conftest import Command
from tests.families import network_of, relative_error, save
from tests.growing import opened_of

# Grouped queries, heads · head_dim ≠ hidden, multipliers and constants off their defaults, and a
# vocabulary that is larger than the tokenizer's.
ODD = ModelConfig(
    vocab_size=354,
    hidden_size=48,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=6,
    num_key_value_heads=2,
    head_dim=12,
    max_position_embeddings=128,
    rms_norm_eps=3e-3,
    rope_theta=500.0,
    input_mult=3.7,
    output_mult=0.61,
)
TOKENS = 344
TEXTS = [
    "In the beginning 天地玄黃 </s> x = 12  <s><pad>",
    "12345 1,000.5  ½²٣ 7\n\n  8\t9 \r\n 10",
    "def f(x):\n    return x**2  # it's I'LL\n\n\n",
    "  ",
    "Ａé\u0301 e\u0301 \u200b🙂👩‍👩‍👧",
    "第3回，那船在1987年过了旧港。",
]
Q, K = "blk.1.attn_q.weight", "blk.1.attn_k.weight"


def weights_of(model: ModelConfig) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(5)
    return {
        name: 6 * w if w.dim() == 2 else w + torch.rand(w.shape, generator=random)
        for name, w in initial_state(model, seed=3).items()
    }


def train(folder: Path, name: str) -> Path:
    folder.mkdir()
    (folder / "text.txt").write_text("In the beginning was the word 12 34. 天地玄黃。\n" * 20)
    train_tokenizer([folder / "text.txt"], TOKENS, folder / "out", cut=name)
    return folder / "out"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("tokenizer") / "qwen2", "qwen2")


@pytest.fixture(scope="module")
def odd(tokenizer: Path) -> Opened:
    return opened_of(ODD, weights_of(ODD), tokenizer=tokenizer)


@pytest.fixture(scope="module")
def exported(odd: Opened, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("gguf") / "out"
    export(odd, out, "gguf")
    return out


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """(values, tensors) of the file, by the library's own reader."""
    reader = gguf.GGUFReader(folder / FILE)
    values = {key: field.contents() for key, field in reader.fields.items()}
    return values, {tensor.name: tensor for tensor in reader.tensors}


def ours(name: str) -> str:
    names = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "ffn_up": "mlp.up_proj"}
    _, layer, module, kind = name.split(".")
    return f"model.layers.{layer}.{names[module]}.{kind}"


def unpaired(value: Tensor, head_dim: int) -> Tensor:
    """Rows of neighbours back to where ours has them."""
    order = torch.arange(head_dim).view(head_dim // 2, 2).T.reshape(-1)
    return value.view(-1, head_dim, value.shape[-1])[:, order].reshape(value.shape)


def test_the_file_has_every_weight_bit_for_bit(exported: Path, odd: Opened) -> None:
    weights, (values, tensors) = weights_of(ODD), read(exported)
    assert values["general.architecture"] == "granite"
    assert len(tensors) == len(weights)
    for name in (Q, K, "blk.0.ffn_up.weight"):
        found = torch.from_numpy(np.array(tensors[name].data))
        if name in (Q, K):
            assert not torch.equal(found, weights[ours(name)]), "RoPE's rows change places"
            found = unpaired(found, ODD.head_dim)
        assert torch.equal(found, weights[ours(name)])
    assert all(tensor.data_offset % 32 == 0 for tensor in tensors.values())
    size = (exported / FILE).stat().st_size
    assert size - min(t.data_offset for t in tensors.values()) == export_bytes(odd.state, "gguf")
    assert sorted(p.name for p in exported.iterdir()) == ["README.md", FILE]
    card = (exported / "README.md").read_text()
    assert "library_name: gguf" in card
    # llama-cli only chats since llama.cpp's end of 2025.
    assert f"llama-completion -m {FILE} -no-cnv" in card


def test_shape_and_multipliers_stand_in_it(exported: Path) -> None:
    values, _ = read(exported)
    found = {key.removeprefix("granite."): value for key, value in values.items()}
    assert found["embedding_scale"] == pytest.approx(3.7)
    assert found["logit_scale"] == pytest.approx(1 / ODD.logit_multiplier)
    assert found["attention.scale"] == pytest.approx(12**-0.5)
    assert found["residual_scale"] == 1.0
    assert found["attention.key_length"] == found["attention.value_length"] == 12
    assert found["attention.head_count_kv"] == 2
    assert found["rope.freq_base"] == 500.0


def test_the_tokenizer_stands_in_it_and_is_padded(exported: Path, tokenizer: Path) -> None:
    values, _ = read(exported)
    tokens, types = values["tokenizer.ggml.tokens"], values["tokenizer.ggml.token_type"]
    assert values["tokenizer.ggml.pre"] == "qwen2"
    assert len(tokens) == len(types) == ODD.vocab_size
    assert tokens[TOKENS:] == [f"[PAD{index}]" for index in range(TOKENS, 354)]
    assert types[TOKENS:] == [5] * 10 and types[tokens.index("</s>")] == 3
    end = Tokenizer.load(tokenizer).eos_id
    assert values["tokenizer.ggml.eos_token_id"] == values["tokenizer.ggml.bos_token_id"] == end
    assert values["tokenizer.ggml.add_bos_token"] is False


def test_pieces_make_the_same_file(
    odd: Opened, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("teleflm.checkpoint.folder._PIECE_BYTES", 4 * 48 * 5)  # 5 rows, of 12
    export(odd, tmp_path / "out", "gguf")
    assert (tmp_path / "out" / FILE).read_bytes() == (exported / FILE).read_bytes()


@pytest.mark.parametrize("dtype", ["bf16", "fp16", "q8_0"])
def test_other_precisions(odd: Opened, tmp_path: Path, dtype: ExportDtype) -> None:
    export(odd, tmp_path / "out", "gguf", dtype)
    _, tensors = read(tmp_path / "out")
    expected = {"bf16": "BF16", "fp16": "F16", "q8_0": "F16"}[dtype]  # 48 is no multiple of 32
    assert tensors[Q].tensor_type.name == expected
    assert tensors["blk.0.attn_norm.weight"].tensor_type.name == "F32"
    down = tensors["blk.0.ffn_down.weight"]
    assert down.tensor_type.name == ("Q8_0" if dtype == "q8_0" else expected)
    values = torch.from_numpy(np.array(gguf.quants.dequantize(down.data, down.tensor_type)))
    reference = weights_of(ODD)["model.layers.0.mlp.down_proj.weight"]
    assert relative_error(values, reference) < {"bf16": 5e-3, "fp16": 1e-3, "q8_0": 5e-3}[dtype]


def test_what_q8_0_does_not_hold_is_said(
    teleflm: Command, odd: Opened, tokenizer: Path, tmp_path: Path
) -> None:
    export(odd, tmp_path / "hub", "granite")
    done = teleflm("export", tmp_path / "hub", tmp_path / "q8", *OPTIONS, "--dtype", "q8_0")
    # All that read the stream, 48 wide, and the output's 72 of the heads; not the MLP's 64.
    assert done.code == 0 and "14 tensors are in fp16 and not in q8_0" in done.err
    assert "blk.N.attn_q.weight" in done.err and "ffn_down" not in done.err
    refused = teleflm("export", tmp_path / "hub", tmp_path / "no", "--dtype", "q8_0")
    assert refused.code == 2 and "--dtype q8_0 is none of the format granite" in refused.err
    again = teleflm("export", tmp_path / "hub", tmp_path / "q8", *OPTIONS, "--force")
    assert again.code == 0
    for verb in (("generate", tmp_path / "q8", "a"), ("import", tmp_path / "q8", tmp_path / "x")):
        refused = teleflm(*verb)
        assert refused.code == 2 and "GGUF is written and not read" in refused.err


OPTIONS = ("--format", "gguf")


def test_values_beyond_fp16_are_refused(tokenizer: Path, tmp_path: Path) -> None:
    weights = weights_of(ODD)
    weights["lm_head.weight"][3, 3] = 1e5
    source = opened_of(ODD, weights, tokenizer=tokenizer)
    with pytest.raises(CheckpointError, match=r"lm_head\.weight has values beyond"):
        export(source, tmp_path / "out", "gguf", "fp16")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"sliding_window": 9, "sliding_layers": (0, 1)}, "sliding_window = 9"),
        ({"nope_layers": (1,)}, "no RoPE in the layers 1"),
        ({"qkv_bias": True}, "qwen2 heads that are 72 wide together"),
        ({"qk_norm": True, "qkv_bias": True, "o_bias": True}, "qwen3 o_bias = True"),
    ],
)
def test_what_no_architecture_holds_is_refused(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        architecture_of(ODD.model_copy(update=changes))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"pre_tokenizer": {"type": "Whitespace"}}, "cuts a text as none of"),
        ({"normalizer": {"type": "Lowercase"}}, "changed by Lowercase"),
        ({"pre_tokenizer": None}, "cuts a text as none of"),
    ],
)
def test_a_tokenizer_that_the_engine_cuts_otherwise_is_refused(
    teleflm: Command,
    odd: Opened,
    tokenizer: Path,
    tmp_path: Path,
    change: dict[str, Any],
    named: str,
) -> None:
    hub = tmp_path / "hub"
    export(odd, hub, "granite")
    content = json.loads((tokenizer / "tokenizer.json").read_text())
    (hub / "tokenizer.json").write_text(json.dumps({**content, **change}))
    refused = teleflm("export", hub, tmp_path / "out", *OPTIONS)
    assert refused.code == 2 and named in refused.err and "--no-tokenizer" in refused.err
    assert not (tmp_path / "out").exists()
    assert teleflm("export", hub, tmp_path / "out", *OPTIONS, "--no-tokenizer").code == 0
    assert read(tmp_path / "out")[0]["tokenizer.ggml.model"] == "none"


def test_another_family_has_its_own_architecture(tmp_path: Path) -> None:
    for family, architecture in (("qwen2", "qwen2"), ("tied qwen3", "qwen3"), ("llama3", "llama")):
        network = network_of(family, torch.float32, hidden_size=48)
        source = open_state(save(network, tmp_path / family))
        export(source, tmp_path / f"{family}-gguf", "gguf")
        values, tensors = read(tmp_path / f"{family}-gguf")
        assert values["general.architecture"] == architecture
        assert ("output.weight" in tensors) == source.state.model.has_head
        assert ("rope_freqs.weight" in tensors) == (family == "llama3")
        if architecture != "llama":
            stored = torch.from_numpy(np.array(tensors[Q].data))
            assert torch.equal(stored, source.state.weight(ours(Q), (slice(None), slice(None))))


# By the engine itself: `make engines`.


def engine(folder: Path, **options: Any) -> Any:
    """The model in llama.cpp, as exact as it computes."""
    module = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    return module.Llama(
        str(folder / FILE),
        n_ctx=128,
        n_threads=1,
        logits_all=True,
        verbose=False,
        flash_attn=False,
        type_k=module.GGML_TYPE_F32,
        type_v=module.GGML_TYPE_F32,
        **options,
    )


def engine_logits(model: Any, ids: list[int]) -> Tensor:
    model.reset()
    model.eval(ids)
    return torch.from_numpy(np.array(model.scores[: len(ids)]))


FAMILY = {
    "granite": ("tied granite", {}),
    "llama": ("llama", {}),
    "biased": ("biased", {}),
    "llama3": ("llama3", {}),
    "linear": ("linear", {}),
    "yarn": ("yarn", {}),
    "qwen2": ("qwen2", {"hidden_size": 48}),
    "qwen3": ("tied qwen3", {}),
    "smollm3": ("smollm3", {"num_hidden_layers": 4, "no_rope_layer_interval": 4}),
}


@pytest.mark.engines
@pytest.mark.parametrize("family", ["odd", "folded", *FAMILY])
def test_the_engine_computes_the_same_function(odd: Opened, tmp_path: Path, family: str) -> None:
    source = odd
    if family == "folded":
        export(odd, tmp_path / "llama", "llama")
        source = open_state(tmp_path / "llama")
    elif family != "odd":
        name, more = FAMILY[family]
        source = open_state(save(network_of(name, torch.float32, **more), tmp_path / "hub"))
    export(source, tmp_path / "out", "gguf")
    model = source.state.model
    vocab = model.vocab_size
    ids = torch.randint(0, vocab, (1, 40), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        reference = source.network()(ids)[0]
    loaded = engine(tmp_path / "out")
    assert relative_error(engine_logits(loaded, ids[0].tolist()), reference) <= 1e-5


@pytest.mark.engines
@pytest.mark.parametrize("name", ["qwen2", "smollm", "deepseek-v3"])
def test_the_engine_has_the_same_tokens(tmp_path: Path, name: str) -> None:
    folder = train(tmp_path / "tokenizer", name)
    export(opened_of(ODD, weights_of(ODD), tokenizer=folder), tmp_path / "out", "gguf")
    loaded, tokenizer = engine(tmp_path / "out", vocab_only=True), Tokenizer.load(folder)
    for text in TEXTS:
        found = loaded.tokenize(text.encode(), add_bos=True, special=False)
        assert found == tokenizer.encode_prompt(text), text


@pytest.mark.engines
def test_the_engine_writes_the_same_text(exported: Path, tokenizer: Path) -> None:
    prompt = Tokenizer.load(tokenizer).encode_prompt("In the beginning")
    network = build_model(ODD, weights_of(ODD), torch.float32)
    (expected,) = generate(network, [prompt], 64)
    loaded, written = engine(exported), list(prompt)
    for _ in range(64):
        written.append(int(engine_logits(loaded, written)[-1].argmax()))
    assert written[len(prompt) :] == expected
