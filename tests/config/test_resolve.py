"""MODEL, as commands name it: presets, inheritance, files that are no model."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from teleflm.config.huggingface import to_huggingface
from teleflm.config.resolve import model_fields, preset_names, resolve_model
from teleflm.errors import ConfigError
from tests.tiny import FIELDS, MODEL

SHAPES = {
    "nano-52b": (128, 352, 16, 8),
    "nano-102b": (160, 432, 20, 10),
    "nano-1t": (320, 1536, 35, 20),
    "tele-flm-52b": (8192, 21_824, 64, 64),
    "tele-flm-102b": (10_240, 27_264, 80, 80),
    "tele-flm-1t": (20_480, 98_304, 140, 160),
    "tele-flm-mup": (512, 1344, 64, 4),
}


def test_presets_are_the_published_shapes() -> None:
    assert preset_names() == sorted(SHAPES)
    for name, (hidden, ffn, layers, heads) in SHAPES.items():
        model = resolve_model(name)
        assert (model.hidden_size, model.intermediate_size) == (hidden, ffn)
        assert (model.num_hidden_layers, model.num_attention_heads) == (layers, heads)
        assert model.num_key_value_heads == heads
        assert model.head_dim == (16 if name.startswith("nano") else 128)
        assert model.vocab_size == 80_000


def test_published_logit_multipliers() -> None:
    # TELEFLM.md §3: one µP family; the 1T keeps 1/40 by its output_mult of 2.
    expected = {"tele-flm-52b": 1 / 32, "tele-flm-102b": 1 / 40, "tele-flm-1t": 1 / 40}
    assert {name: resolve_model(name).logit_multiplier for name in expected} == expected


def test_nano_presets_leave_the_vocabulary_open() -> None:
    assert "vocab_size" not in resolve_model("nano-52b").model_fields_set
    assert "vocab_size" in resolve_model("tele-flm-52b").model_fields_set


def test_a_child_inherits_what_it_leaves_out() -> None:
    child = resolve_model({"hidden_size": 48}, MODEL)
    assert child == MODEL.model_copy(update={"hidden_size": 48})
    assert child.head_dim == 8, "from the parent, not 48 / 4"


def test_a_multi_head_parent_has_multi_head_children() -> None:
    parent = resolve_model({**FIELDS, "num_key_value_heads": 4, "output_mult": 0.3})
    child = resolve_model({"num_attention_heads": 6, "hidden_size": 48}, parent)
    assert (child.num_key_value_heads, child.output_mult) == (6, 0.3)
    grouped = resolve_model({"num_attention_heads": 6}, MODEL)
    assert grouped.num_key_value_heads == 2, "a grouped parent's groups stay"


def test_a_preset_s_child_takes_the_preset_s_output_mult() -> None:
    parent = resolve_model("tele-flm-102b")
    assert resolve_model("tele-flm-1t", parent).output_mult == 2.0
    assert resolve_model({"hidden_size": 20_480}, parent).output_mult == 1.0


def test_presets_files_and_folders(tmp_path: Path) -> None:
    file = tmp_path / "m.yaml"
    file.write_text(yaml.safe_dump({**FIELDS, "vocab_size": 40}))
    assert resolve_model(str(file)) == MODEL
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "config.json").write_text(json.dumps(to_huggingface(MODEL, "teleflm")))
    found = resolve_model(str(tmp_path / "hf"))
    assert found.model_copy(update={"vector_init_std": 0.05}) == MODEL
    changed = resolve_model({"preset": "nano-52b", "num_hidden_layers": 3})
    assert changed == resolve_model("nano-52b").model_copy(update={"num_hidden_layers": 3})


@pytest.mark.parametrize("spec", ["tele-flm-53b", "nano", 3, None, ["nano-52b"], {"preset": 3}])
def test_models_that_are_not_there(spec: Any) -> None:
    with pytest.raises(ConfigError, match="model"):
        model_fields(spec)


def test_a_run_s_file_is_no_model_s(tmp_path: Path) -> None:
    path = tmp_path / "7b.yaml"
    path.write_text(yaml.safe_dump({"run_dir": "runs/7b", "model": FIELDS}), encoding="utf-8")
    for spec in (str(path), {"preset": str(path)}):
        with pytest.raises(ConfigError, match=r"7b\.yaml: a RUN\.yaml, .* a file of their own$"):
            resolve_model(spec)


def test_a_folder_that_is_no_model_s_is_told_the_ways(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"a folder without a config\.json.*start_from"):
        resolve_model(str(tmp_path))


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", b"{}"])
def test_damaged_config_json(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ConfigError, match=r"config\.json"):
        resolve_model(str(tmp_path))
