"""Each family of models: the same function as transformers', grown and exported back, or refused by
its field."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from teleflm.checkpoint import pretrained
from teleflm.checkpoint.export import export
from teleflm.checkpoint.load import load_checkpoint
from teleflm.checkpoint.manifest import problems
from teleflm.checkpoint.open import load, open_state
from teleflm.generation.generate import generate
from teleflm.model.axes import parameter_names
from tests.conftest import Command
from tests.families import (
    EMBEDDING,
    FAMILIES,
    as_pickles,
    logits_of,
    network_of,
    ours,
    own_format,
    relative_error,
    save,
    text_of,
    tokens,
)

# How tensors are stored is the same for all; a tie makes two of them one, which pickles say.
STORED = [(family, "safetensors") for family in FAMILIES]
STORED += [(family, "pickles") for family in ("llama", "tied granite")]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_text_is_written_and_a_model_goes_back(family: str, tmp_path: Path) -> None:
    network = network_of(family, torch.float32)
    source = save(network, tmp_path / "source")
    export(open_state(source), tmp_path / "exported", own_format(family))
    back = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "exported").eval()
    assert type(back) is type(network)
    # With the cache. Each position's table of RoPE is made by itself here, all at once there.
    text = text_of(network)
    assert generate(load(source), [tokens()[0, :20].tolist()], 40) == [text]
    assert text_of(back) == text
    assert relative_error(logits_of(back), logits_of(network)) <= 1e-5


@pytest.mark.parametrize("family", ["llama3", "biased", "tied", "qwen2", "qwen3"])
def test_a_format_that_cannot_hold_a_model_is_refused(
    family: str, tmp_path: Path, teleflm: Command
) -> None:
    source = save(network_of(family, torch.float32), tmp_path / "source")
    refused = teleflm("export", source, tmp_path / "out", "--format", "teleflm")
    assert (refused.code, refused.out) == (2, "")
    assert "cannot be said in the layout of teleflm; export as " in refused.err
    assert own_format(family) in refused.err.partition("export as")[2]
    done = teleflm("export", source, tmp_path / "out")
    assert done.code == 0, done.err
    first = own_format(family) if family.startswith("qwen") else "granite"
    assert f" as {first} in fp32" in done.out


@pytest.mark.parametrize("stored", ["no head", "the same head", "another head"])
def test_a_tied_model_is_untied_on_request(stored: str, tmp_path: Path, teleflm: Command) -> None:
    source = save(network_of("llama3", torch.float32, tie_word_embeddings=True), tmp_path / "tied")
    index = json.loads((source / pretrained.INDEX).read_text())
    file = source / index["weight_map"][EMBEDDING]
    assert "lm_head.weight" not in index["weight_map"]
    if stored != "no head":
        head = load_file(file)[EMBEDDING] * (2.0 if stored == "another head" else 1.0)
        save_file({**load_file(file), "lm_head.weight": head}, file, {"format": "pt"})
        index["weight_map"]["lm_head.weight"] = file.name
        (source / pretrained.INDEX).write_text(json.dumps(index))
    as_it_is = teleflm("import", source, tmp_path / "as-it-is")
    if stored == "another head":
        # transformers takes it, though the config ties the two.
        assert (as_it_is.code, as_it_is.out) == (2, "")
        assert "lm_head.weight is not the embedding" in as_it_is.err and "--untie" in as_it_is.err
    else:
        assert as_it_is.code == 0
    assert teleflm("import", source, tmp_path / "out", "--untie").code == 0
    assert not list(problems(tmp_path / "out"))
    _, state = load_checkpoint(tmp_path / "out")
    reference = logits_of(transformers.AutoModelForCausalLM.from_pretrained(source).eval())
    assert relative_error(ours(state.model, state.weights, torch.float32), reference) <= 1e-5
    assert teleflm("export", tmp_path / "out", tmp_path / "back", "--format", "llama").code == 0
    if stored == "no head":
        # The function alone, as neither has been trained.
        verified = teleflm("verify", source, tmp_path / "out")
        assert "tie: the head is a matrix of its own now" in verified.out
    back = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "back").eval()
    assert not back.config.tie_word_embeddings
    assert relative_error(logits_of(back), reference) <= 1e-5


@pytest.mark.parametrize("way", ["import", "import --untie"])
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("fp8", "tensor lm_head.weight is stored as F8_E4M3; quantised weights cannot be read"),
        ("shape", "tensor lm_head.weight is [96, 40], but config.json asks for [97, 40]"),
        ("promised only", "tensor lm_head.weight is missing, and the index says that it is here"),
        ("kept back", "tensor lm_head.weight is missing by the index"),
    ],
)
def test_a_stored_head_of_a_tied_model_is_looked_at_as_any_tensor(
    fault: str, message: str, way: str, tmp_path: Path, teleflm: Command
) -> None:
    source = save(network_of("tied", torch.float32), tmp_path / "tied")
    index = json.loads((source / pretrained.INDEX).read_text())
    file = source / index["weight_map"][EMBEDDING]
    head = load_file(file)[EMBEDDING].clone()
    heads = {"fp8": head.to(torch.float8_e4m3fn), "shape": head[:-1].clone(), "kept back": head}
    if fault in heads:
        save_file({**load_file(file), "lm_head.weight": heads[fault]}, file, {"format": "pt"})
    if fault != "kept back":
        index["weight_map"]["lm_head.weight"] = file.name
        (source / pretrained.INDEX).write_text(json.dumps(index))
    verb, *untie = way.split()
    refused = teleflm(verb, source, tmp_path / "out", *untie)
    assert (refused.code, refused.out) == (2, "")
    assert f"{file}: {message}" in refused.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sliding_window", 32),
        ("hidden_act", "gelu"),
        ("rope_scaling", {"rope_type": "dynamic", "factor": 4.0}),
        ("rope_scaling", "linear"),
        ("rope_parameters", {"rope_type": "longrope"}),
        ("rope_parameters", {"full_attention": {"rope_type": "default"}}),
        ("partial_rotary_factor", 0.5),
        ("quantization_config", {"quant_method": "gptq"}),
        ("model_type", "granitemoehybrid"),
    ],
)
def test_another_architecture_is_refused_by_its_field(
    field: str, value: object, tmp_path: Path, teleflm: Command
) -> None:
    folder = save(network_of("llama", torch.float32), tmp_path / "llama")
    config = json.loads((folder / "config.json").read_text())
    if field == "rope_scaling":
        config.pop("rope_parameters", None)
    (folder / "config.json").write_text(json.dumps({**config, field: value}))
    done = teleflm("import", folder, tmp_path / "out")
    assert done.code == 2
    assert f"config.json: {field} " in done.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("value", [0, -1.0, float("inf"), float("nan"), "much", None])
@pytest.mark.parametrize("field", ["residual_multiplier", "attention_multiplier"])
def test_an_impossible_multiplier_is_refused(
    field: str, value: object, tmp_path: Path, teleflm: Command
) -> None:
    folder = save(network_of("granite", torch.float32), tmp_path / "granite")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, field: value}))
    done = teleflm("import", folder, tmp_path / "out")
    assert done.code == 2
    assert f"config.json: {field} is {value!r}, not a positive number" in done.err


@pytest.mark.parametrize(("family", "stored"), STORED)
@pytest.mark.parametrize("width", ["mask", "clone", "zero"])
def test_a_folder_grows_certifies_and_exports_back(
    family: str, stored: str, width: str, tmp_path: Path, teleflm: Command
) -> None:
    network = network_of(family, torch.float32)
    source = save(network, tmp_path / "source")
    if stored == "pickles":
        as_pickles(source)
    larger = tmp_path / "larger.yaml"
    sizes = {"hidden_size": 80, "intermediate_size": 112, "num_hidden_layers": 3}
    larger.write_text(json.dumps({**sizes, "num_attention_heads": 8, "num_key_value_heads": 4}))
    grown, out = tmp_path / "grown", tmp_path / "out"
    done = teleflm(
        *("grow", str(source), str(grown), "--to", str(larger)), *("--width", width), "--place", "0"
    )
    assert done.code == 0, done.err
    verified = teleflm("verify", str(source), str(grown), "--json")
    assert verified.code == 0, verified.err
    certificate = json.loads(verified.out)
    assert certificate["exact"] and certificate["regrown"]
    assert certificate["tie"] == ("kept" if network.config.tie_word_embeddings else None)
    if certificate["tie"]:
        said = teleflm("verify", str(source), str(grown)).out
        assert "tie: the embedding is the head too, as before" in said
    assert certificate["function"]["max_relative_logit_error"] <= 1e-12
    exported = teleflm("export", str(grown), str(out), "--format", own_format(family))
    assert exported.code == 0, exported.err
    again = transformers.AutoModelForCausalLM.from_pretrained(out).eval()
    assert again.config.hidden_size == 80
    assert type(again) is type(network)
    assert text_of(again) == text_of(network)
    assert relative_error(logits_of(again), logits_of(network)) <= 1e-5


@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_a_bias_that_the_family_does_not_know_is_refused(
    family: str, tmp_path: Path, teleflm: Command
) -> None:
    folder = save(network_of(family, torch.float32), tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "attention_bias": True}))
    done = teleflm("import", folder, tmp_path / "out")
    named = "q_proj.bias is missing" if family == "llama" else "config.json: attention_bias = True"
    assert done.code == 2 and named in done.err


@pytest.mark.parametrize(("family", "stored"), STORED)
@pytest.mark.parametrize(
    ("held", "dtype", "bound"),
    [
        (torch.float32, torch.float32, 1e-5),
        (torch.bfloat16, torch.float32, 1e-5),
        (torch.float32, torch.float64, 1e-12),
    ],
    ids=["fp32", "bf16", "fp64"],
)
def test_an_import_is_the_same_function(
    family: str,
    held: torch.dtype,
    dtype: torch.dtype,
    bound: float,
    stored: str,
    tmp_path: Path,
    teleflm: Command,
) -> None:
    # Weights that float32 holds, so that both precisions have something to be exact about.
    source = save(network_of(family, held), tmp_path / family)
    # Loaded, as a cast of the network would round RoPE's frequencies with the weights.
    loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    reference = logits_of(loaded.to(dtype).eval())
    if stored == "pickles":
        as_pickles(source)
    assert teleflm("import", source, tmp_path / "out").code == 0
    manifest, state = load_checkpoint(tmp_path / "out")
    assert relative_error(ours(state.model, state.weights, dtype), reference) <= bound
    with torch.no_grad():
        assert relative_error(load(source)(tokens()), reference) <= 1e-5
    assert not list(problems(tmp_path / "out"))
    assert manifest.adam_steps == manifest.step == manifest.tokens == 0
    for kind in ("exp_avg", "exp_avg_sq"):
        moments = getattr(state, kind)
        assert list(moments) == list(parameter_names(state.model))
        assert not any(moment.any() for moment in moments.values())
