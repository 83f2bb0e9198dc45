"""Reading Hugging Face folders: every tensor checked, every difference in function refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from teleflm.checkpoint.export import export
from teleflm.checkpoint.open import open_state
from teleflm.checkpoint.pretrained import open_pretrained
from teleflm.config.huggingface import from_huggingface
from teleflm.config.model import ModelConfig
from teleflm.errors import CheckpointError, ConfigError
from teleflm.model.init import initial_state
from tests.growing import opened_of

MODEL = ModelConfig.model_validate(
    {
        "vocab_size": 24,
        "hidden_size": 16,
        "intermediate_size": 20,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32,
        "input_mult": 1.3,
        "output_mult": 0.7,
    }
)
Q_PROJ = "model.layers.1.self_attn.q_proj.weight"
FILE = "model.safetensors"
LLAMA = {
    "model_type": "llama",
    "hidden_size": 16,
    "intermediate_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    export(opened_of(MODEL, initial_state(MODEL, seed=0)), tmp_path / "toy", "teleflm")
    return tmp_path / "toy"


def change(folder: Path, edit: Callable[[dict[str, Tensor]], Any]) -> None:
    state = {name: w.clone() for name, w in load_file(folder / FILE).items()}
    edit(state)
    save_file(state, folder / FILE)


def test_our_own_export_comes_back_bit_for_bit(folder: Path) -> None:
    source = open_state(folder)
    assert (source.state.model, source.name, source.tokenizer) == (MODEL, "toy", folder)
    expected, weights = initial_state(MODEL, seed=0), source.state.in_memory().weights
    assert list(weights) == list(expected)
    assert all(torch.equal(weights[name], w) for name, w in expected.items())


def test_an_import_can_be_exported_over_itself(folder: Path) -> None:
    export(open_state(folder), folder, "granite", force=True)
    state = open_pretrained(folder).in_memory().weights
    assert all(torch.equal(state[n], w) for n, w in initial_state(MODEL, seed=0).items())


def test_a_folder_with_a_preset_s_name_is_a_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.rename(folder.with_name("nano-52b"))
    monkeypatch.chdir(folder.parent)
    assert open_pretrained(Path("nano-52b")).model == MODEL


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda s: s.pop(Q_PROJ), f"tensor {Q_PROJ} is missing"),
        (lambda s: s.update({Q_PROJ: s[Q_PROJ][:-1].clone()}), rf"{Q_PROJ} is \[15, 16\].*16, 16"),
        (lambda s: s.update({Q_PROJ: s[Q_PROJ].to(torch.int8)}), f"{Q_PROJ} is stored as I8"),
        (lambda s: s.update({"model.layers.2.mlp.up_proj.weight": torch.ones(2)}), "layers.2.mlp"),
        (
            lambda s: s.update({"model.layers.0.self_attn.q_proj.bias": torch.ones(2)}),
            "q_proj.bias",
        ),
    ],
)
def test_foreign_tensors_are_refused(
    folder: Path, edit: Callable[[dict[str, Tensor]], Any], message: str
) -> None:
    change(folder, edit)
    with pytest.raises(CheckpointError, match=message):
        open_pretrained(folder)


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.0.self_attn.rotary_emb.inv_freq",
        "model.rotary_emb.inv_freq",
        "rope.freqs",
    ],
)
def test_the_rope_frequencies_of_old_files_are_no_weights(name: str, folder: Path) -> None:
    change(folder, lambda state: state.update({name: torch.ones(2)}))
    assert name not in open_pretrained(folder).in_memory().weights


@pytest.mark.parametrize("kept", [0, 4, 200, 3000])
def test_truncated_weights_are_named(folder: Path, kept: int) -> None:
    (folder / FILE).write_bytes((folder / FILE).read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: damaged"):
        open_pretrained(folder)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ('{"weight_map": {"lm_head.weight": "../toy/model.safetensors"}}', "not a file name"),
        ('{"weight_map": {"lm_head.weight": 3}}', "not a file name"),
        ('{"weight_map": {"lm_head.weight": "gone.safetensors"}}', "gone.safetensors: this shard"),
        ('{"weight_map": {"lm_head.weight": "model.safetensors"}}', "embed_tokens.weight is mis"),
        ('{"weight_map": 3}', "not an index"),
        ("{", "not an index"),
    ],
)
def test_a_bad_index_is_refused(folder: Path, index: str, message: str) -> None:
    (folder / "model.safetensors.index.json").write_text(index)
    with pytest.raises(CheckpointError, match=message):
        open_pretrained(folder)


def test_an_index_that_promises_too_much(folder: Path) -> None:
    state = load_file(folder / FILE)
    weight_map = dict.fromkeys(state, FILE)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    change(folder, lambda state: state.pop(Q_PROJ))
    with pytest.raises(CheckpointError, match=Q_PROJ):
        open_pretrained(folder)


def test_what_is_not_there_is_said(folder: Path, tmp_path: Path) -> None:
    (folder / FILE).rename(folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin: damaged"):
        open_pretrained(folder)
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(CheckpointError, match=r"none of model\.safetensors"):
        open_pretrained(folder)
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        open_pretrained(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("hidden", "input_mult", "output_mult", "scale", "expected"),
    [(8192, 1.0, 0.5, 16.0, 1 / 32), (20480, 1.0, 2.0, 80.0, 1 / 40)],
)
def test_the_released_multipliers(
    hidden: int, input_mult: float, output_mult: float, scale: float, expected: float
) -> None:
    data = {
        **LLAMA,
        "model_type": "TeleFLM",
        "hidden_size": hidden,
        "use_mup": True,
        "input_mult": input_mult,
        "output_mult": output_mult,
        "mup_scale_factor": scale,
    }
    model = ModelConfig.model_validate(from_huggingface(data, "config.json"))
    assert model.logit_multiplier == pytest.approx(expected, rel=1e-15)
    plain = ModelConfig.model_validate(
        from_huggingface({**data, "use_mup": False, "input_mult": 9.0}, "config.json")
    )
    assert (plain.input_mult, plain.logit_multiplier) == (1.0, 1.0)


def test_a_silent_file_means_its_family_s_defaults() -> None:
    fields = from_huggingface(LLAMA, "config.json")
    assert (fields["rms_norm_eps"], fields["vocab_size"]) == (1e-6, 32_000)
    assert fields["max_position_embeddings"] == 2048
    # An ignored window would be another function.
    fields = from_huggingface({**LLAMA, "model_type": "mistral"}, "config.json")
    assert fields["sliding_window"] == 4096
    assert len(fields["sliding_layers"]) == LLAMA["num_hidden_layers"]


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"sliding_window": 1024}, "sliding_window = 1024"),
        ({"model_type": "mistral", "sliding_window": None, "mlp_bias": True}, "mlp_bias = True"),
        (
            {"rope_parameters": {"rope_type": "longrope"}},
            "rope_parameters is of the kind",
        ),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope_scaling is of the kind 'dyn"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor = 0.5"),
        ({"hidden_act": "gelu"}, "hidden_act = 'gelu'"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"hidden_size": None}, "hidden_size is None"),
        ({"hidden_size": "16"}, "hidden_size is '16'"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0"),
        ({"rope_theta": "high"}, "rope_theta is 'high'"),
        (
            {"model_type": "granite", "attention_multiplier": 0.5, "logits_scaling": 0},
            "logits_scaling is 0",
        ),
    ],
)
def test_another_function_is_refused(given: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError, match=field):
        from_huggingface({**LLAMA, **given}, "config.json")


def test_a_window_as_wide_as_the_context_is_none() -> None:
    given = {"model_type": "mistral", "num_key_value_heads": 2, "max_position_embeddings": 4096}
    assert from_huggingface({**LLAMA, **given}, "config.json")["num_key_value_heads"] == 2
