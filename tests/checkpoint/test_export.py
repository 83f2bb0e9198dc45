"""Exports: the same function in transformers, whole folders, honest files."""

import errno
import json
import math
import os
import shutil
import subprocess
import sys
from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from teleflm.checkpoint import folder as folder_module
from teleflm.checkpoint import hub_format
from teleflm.checkpoint.card import CardFacts
from teleflm.checkpoint.export import export, export_bytes
from teleflm.checkpoint.load import open_checkpoint
from teleflm.checkpoint.open import Opened, load, open_state
from teleflm.checkpoint.pretrained import INDEX, open_pretrained
from teleflm.checkpoint.save import save_checkpoint
from teleflm.config.families import family_of, formats_of
from teleflm.config.formats import ExportDtype, HubKind
from teleflm.config.model import ModelConfig
from teleflm.config.resolve import resolve_model
from teleflm.data.tokenizer import Tokenizer
from teleflm.data.tokenizer_training import train_tokenizer
from teleflm.errors import CheckpointError, ConfigError, MachineError
from teleflm.generation.generate import generate
from teleflm.growth.event import Event
from teleflm.growth.fold import folded
from teleflm.growth.grow import grow
from teleflm.growth.state import Kind
from teleflm.model.axes import parameter_count, parameter_names
from teleflm.model.init import build_model, initial_state
from teleflm.model.region import Region, entries
from tests.growing import fresh_state, opened_of

PLAIN = ModelConfig.model_validate(
    {
        "vocab_size": 344,
        "hidden_size": 32,
        "intermediate_size": 56,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
    }
)
# Grouped queries, heads · head_dim ≠ hidden, and no multiplier or constant at its default.
ODD = PLAIN.model_copy(
    update={
        "hidden_size": 48,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 12,
        "rms_norm_eps": 3e-3,
        "rope_theta": 500.0,
        "input_mult": 3.7,
        "output_mult": 0.61,
    }
)
GROWN = PLAIN.model_copy(
    update={
        "hidden_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "num_key_value_heads": 6,
        "input_mult": 3.7,
    }
)
KINDS = formats_of(PLAIN)
MULTIPLYING: tuple[HubKind, ...] = ("granite", "teleflm")
MODELS = {"plain": PLAIN, "odd": ODD}
STANDARD = ODD.model_copy(update={"parametrization": "standard"})
TEXT = "In the beginning 天地玄黃 </s> x = 12  "
NEW = 32


def weights_of(model: ModelConfig) -> dict[str, Tensor]:
    """Of a random model whose attention, gains and logits are far from trivial."""
    random = torch.Generator().manual_seed(5)
    return {
        name: 6 * w if w.dim() == 2 else w + torch.rand(w.shape, generator=random)
        for name, w in initial_state(model, seed=3).items()
    }


def source_of(model: ModelConfig, **given: Any) -> Opened:
    return opened_of(model, weights_of(model), **given)


def tokens(rows: int = 2, length: int = 40) -> Tensor:
    return torch.randint(0, 344, (rows, length), generator=torch.Generator().manual_seed(1))


# Runs where our package cannot be imported: exports must need none of it.
LOADER = """
import json, sys
sys.modules["teleflm"] = None
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

root, ids = sys.argv[1], torch.load(sys.argv[1] + "/ids.pt")
found = {}
for name in sys.argv[2:]:
    folder, trust = f"{root}/{name}", "teleflm" in name
    net = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=trust).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust)
    options = dict(max_new_tokens=32, do_sample=False, eos_token_id=None)
    padded = torch.cat((torch.full((1, 3), 3), ids[:1, :5]), dim=1)
    mask = torch.tensor([[0] * 3 + [1] * 5, [1] * 8])
    with torch.no_grad():
        first = net(ids[:, :25], use_cache=True)
        cache = next(name for name in ("cache", "past_key_values") if name in first)
        second = net(ids[:, 25:], **{cache: first[cache]})
        found[name] = {
            "class": type(net).__name__,
            "dtype": str(net.dtype),
            "logits": net(ids).logits.float(),
            "chunked": torch.cat((first.logits, second.logits), dim=1).float(),
            "loss": float(net(ids, labels=ids).loss),
            "greedy": net.generate(ids[:1, :5], **options)[0, 5:].tolist(),
            "uncached": net.generate(ids[:1, :5], use_cache=False, **options)[0, 5:].tolist(),
            "padded": net.generate(
                torch.cat((padded, ids[1:, :8])), attention_mask=mask, **options
            )[0, 8:].tolist(),
            "start": net.generate(**options)[0].tolist(),
            "text_ids": tokenizer(TEXT)["input_ids"],
            "text_logits": net(**tokenizer(TEXT, return_tensors="pt")).logits.float(),
            "context": tokenizer.model_max_length,
            "special": [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id],
            "generation": [net.generation_config.bos_token_id, net.generation_config.eos_token_id],
        }
    net.save_pretrained(f"{root}/saved-{name}")
torch.save(found, root + "/found.pt")
"""


@pytest.fixture(scope="module")
def tokenizer_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    (folder / "text.txt").write_text("In the beginning was the word. 天地玄黃。\n" * 20)
    train_tokenizer([folder / "text.txt"], 344, folder / "out")
    return folder / "out"


@pytest.fixture(scope="module")
def root(tokenizer_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every export of both models, the odd one's also in bf16 and in shards."""
    root = tmp_path_factory.mktemp("exports")
    for name, model in MODELS.items():
        for kind in KINDS:
            export(source_of(model, tokenizer=tokenizer_dir), root / f"{name}-{kind}", kind)
    for kind in MULTIPLYING:
        standard = source_of(STANDARD, tokenizer=tokenizer_dir)
        export(standard, root / f"standard-{kind}", kind)
    odd = source_of(ODD, tokenizer=tokenizer_dir)
    export(odd, root / "bf16-llama", "llama", "bf16")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hub_format, "_SHARD_BYTES", 60_000)
        export(odd, root / "shards-granite", "granite")
    return root


@pytest.fixture(scope="module")
def found(root: Path) -> dict[str, dict[str, Any]]:
    """What transformers makes of the exports, in a process without teleflm."""
    names = [p.name for p in root.iterdir()]
    torch.save(tokens(), root / "ids.pt")
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(root / "code")}
    script = f"TEXT = {TEXT!r}\n{LOADER}"
    done = subprocess.run(
        [sys.executable, "-c", script, str(root), *names],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    loaded: dict[str, dict[str, Any]] = torch.load(root / "found.pt")
    return loaded


def relative_error(ours: Tensor, reference: Tensor) -> float:
    return float((ours - reference).abs().max() / reference.abs().max())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", MODELS)
def test_transformers_computes_the_same_function(
    found: dict[str, dict[str, Any]], name: str, kind: HubKind
) -> None:
    got = found[f"{name}-{kind}"]
    network = build_model(MODELS[name], weights_of(MODELS[name]), torch.float32)
    with torch.no_grad():
        ours = network(tokens())
    assert got["class"] == family_of(kind).architecture
    assert relative_error(ours, got["logits"]) <= 1e-5
    # A second chunk on top of a filled cache has a mask of its own.
    assert relative_error(ours, got["chunked"]) <= 1e-5
    loss = torch.nn.functional.cross_entropy(ours[:, :-1].flatten(0, 1), tokens()[:, 1:].flatten())
    assert got["loss"] == pytest.approx(float(loss), rel=1e-5)
    greedy = generate(network, [tokens()[0, :5].tolist()], NEW)[0]
    assert len(set(greedy)) > NEW // 3, "a repeated token would compare equal too easily"
    # transformers renames what it passes a cache as: taken in silence, text with it would be wrong.
    assert got["greedy"] == got["uncached"] == greedy
    assert got["padded"] == greedy


@pytest.mark.parametrize("kind", MULTIPLYING)
def test_without_mup_the_multipliers_have_no_width(
    found: dict[str, dict[str, Any]], root: Path, kind: HubKind
) -> None:
    network = build_model(STANDARD, weights_of(STANDARD), torch.float32)
    assert float(network.logit_multiplier) == 0.61
    with torch.no_grad():
        ours = network(tokens())
    assert relative_error(ours, found[f"standard-{kind}"]["logits"]) <= 1e-5
    # The files cannot say which parametrization it was; µP gives the same logits.
    back = load(root / f"standard-{kind}")
    assert back.config.parametrization == "mup"
    assert back.config.logit_multiplier == pytest.approx(0.61, rel=1e-15)


@pytest.mark.parametrize("kind", KINDS)
def test_the_tokenizer_travels_along(
    found: dict[str, dict[str, Any]], tokenizer_dir: Path, kind: str
) -> None:
    got = found[f"odd-{kind}"]
    assert got["text_ids"] == Tokenizer.load(tokenizer_dir).encode(TEXT)
    # A model takes all that its tokenizer gives.
    assert got["text_logits"].shape == (1, len(got["text_ids"]), ODD.vocab_size)
    assert got["context"] == ODD.max_position_embeddings
    assert got["special"] == [2, 2, 3]
    assert got["generation"] == [2, 2]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", MODELS)
def test_an_empty_text_starts_as_in_training(
    found: dict[str, dict[str, Any]], root: Path, tokenizer_dir: Path, name: str, kind: str
) -> None:
    (eos,) = Tokenizer.load(tokenizer_dir).end_ids
    got = found[f"{name}-{kind}"]["start"]
    network = build_model(MODELS[name], weights_of(MODELS[name]), torch.float32)
    assert got == [eos, *generate(network, [[eos]], 32)[0]]
    assert got[1:] != generate(network, [[1]], 32)[0], "else nothing is told apart"
    # Ours, from the run and from the folder.
    for folder in (tokenizer_dir, root / f"{name}-{kind}"):
        assert Tokenizer.load(folder).encode_prompt("") == [eos]


def test_bf16_is_cast_after_the_fold(found: dict[str, dict[str, Any]], root: Path) -> None:
    assert found["bf16-llama"]["dtype"] == "torch.bfloat16"
    exact = found["odd-llama"]["logits"]
    assert float((found["bf16-llama"]["logits"] - exact).norm() / exact.norm()) < 0.05
    stored = load_file(root / "bf16-llama" / "model.safetensors")["model.embed_tokens.weight"]
    weight = weights_of(ODD)["model.embed_tokens.weight"]
    assert torch.equal(stored, (weight * ODD.input_mult).bfloat16())
    assert not torch.equal(stored, weight.bfloat16() * ODD.input_mult)


def test_shards_are_the_same_model(found: dict[str, dict[str, Any]], root: Path) -> None:
    folder = root / "shards-granite"
    index = json.loads((folder / INDEX).read_text())
    files = sorted(p.name for p in folder.glob("*.safetensors"))
    assert len(files) > 2
    assert sorted(set(index["weight_map"].values())) == files
    assert files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    assert index["metadata"]["total_size"] == 4 * sum(w.numel() for w in weights_of(ODD).values())
    assert not (folder / "model.safetensors").exists()
    assert torch.equal(found["shards-granite"]["logits"], found["odd-granite"]["logits"])
    state = open_pretrained(folder).in_memory().weights
    assert all(torch.equal(state[name], w) for name, w in weights_of(ODD).items())


@pytest.mark.parametrize("kind", ["granite", "teleflm"])
def test_weights_are_untouched(root: Path, kind: str) -> None:
    stored = load_file(root / f"odd-{kind}" / "model.safetensors")
    state = weights_of(ODD)
    assert list(state) == list(parameter_names(ODD))
    assert set(stored) == set(state)
    assert all(torch.equal(stored[name], state[name]) for name in state)


@pytest.mark.parametrize("kind", KINDS)
def test_what_comes_back_is_the_same_function(
    found: dict[str, dict[str, Any]], root: Path, kind: str
) -> None:
    # Our own files, and what transformers (which renames the rope fields) saves of them.
    for name in (f"odd-{kind}", f"saved-odd-{kind}"):
        back = load(root / name)
        with torch.no_grad():
            logits = back(tokens())
        assert relative_error(logits, found[f"odd-{kind}"]["logits"]) <= 1e-5
        if kind == "teleflm":
            assert back.config == ODD
        else:
            assert back.config.rope_theta == ODD.rope_theta
            assert back.config.rms_norm_eps == ODD.rms_norm_eps


def test_the_released_layout(tmp_path: Path) -> None:
    export(source_of(ODD), tmp_path / "out", "teleflm")
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert written["auto_map"]["AutoModelForCausalLM"] == "modeling_teleflm.TeleFLMForCausalLM"
    assert (written["model_type"], written["use_mup"]) == ("TeleFLM", True)
    assert written["output_mult"] / written["mup_scale_factor"] == pytest.approx(
        ODD.logit_multiplier, rel=1e-15
    )
    assert (written["input_mult"], written["torch_dtype"]) == (3.7, "float32")
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == [
        "README.md",
        "config.json",
        "configuration_teleflm.py",
        "generation_config.json",
        "model.safetensors",
        "modeling_teleflm.py",
    ]


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", KINDS)
def test_files_are_what_safetensors_writes(
    tmp_path: Path, kind: HubKind, dtype: ExportDtype
) -> None:
    export(source_of(ODD), tmp_path / "out", kind, dtype)
    factors = {name: 1.0 for name in parameter_names(ODD)}
    if kind not in ("granite", "teleflm"):
        factors["model.embed_tokens.weight"] = ODD.input_mult
        factors["lm_head.weight"] = ODD.logit_multiplier
    stored = {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]
    expected = {name: (w * factors[name]).to(stored) for name, w in weights_of(ODD).items()}
    save_file(expected, tmp_path / "expected", metadata={"format": "pt"})
    written = (tmp_path / "out" / "model.safetensors").read_bytes()
    assert written == (tmp_path / "expected").read_bytes()


class Watched:
    """A model of which every read is noted, until so many were made."""

    def __init__(self, opened: Opened, until: float = math.inf) -> None:
        self.reads: list[tuple[str, Region]] = []
        self._until, self._state = until, opened.state
        self.opened = replace(opened, state=replace(opened.state, read=self._read))

    def _read(self, kind: Kind, name: str, region: Region) -> Tensor:
        assert kind == "weights", "an export needs no moments"
        self.reads.append((name, region))
        if len(self.reads) > self._until:
            raise KeyboardInterrupt
        return self._state.read(kind, name, region)


@pytest.fixture
def inside(tmp_path: Path) -> Path:
    """A checkpoint inside a ramp."""
    grown = replace(grow(fresh_state(PLAIN), GROWN, ramp=10), step=4)
    save_checkpoint(tmp_path / "inside", grown, None, None)
    return tmp_path / "inside"


@pytest.mark.parametrize("kind", KINDS)
def test_no_more_is_read_than_a_piece_at_a_time(
    inside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: HubKind
) -> None:
    export(open_state(inside), tmp_path / "out", kind)
    monkeypatch.setattr(folder_module, "_PIECE_BYTES", 4 * 100)
    watched, told = Watched(open_state(inside)), list[int]()
    export(watched.opened, tmp_path / "pieces", kind, tell=told.append)
    assert max(entries(region) for _, region in watched.reads) <= 100
    model = watched.opened.state.model
    assert sum(told) == export_bytes(watched.opened.state, kind) == 4 * parameter_count(model)
    files = [tmp_path / out / "model.safetensors" for out in ("out", "pieces")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_checkpoint_inside_a_ramp_is_folded_before_it_is_rounded(
    inside: Path, tmp_path: Path
) -> None:
    ordinary = folded(open_checkpoint(inside)[1]).in_memory()
    export(open_state(inside), tmp_path / "out", "granite")
    for name, weight in load_file(tmp_path / "out" / "model.safetensors").items():
        assert ordinary.weights[name].dtype is torch.float64
        assert torch.equal(weight, ordinary.weights[name].float())


def test_interrupted_it_goes_on(
    inside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_format, "_SHARD_BYTES", 20_000)
    monkeypatch.setattr(folder_module, "AT_ONCE", 1)
    out = tmp_path / "out"
    source = open_state(inside)
    for digest in (None, source.digest):
        stopped = Watched(replace(source, digest=digest), until=12)
        with pytest.raises(KeyboardInterrupt):
            export(stopped.opened, out, "llama")
        assert not out.exists()
        # What cannot be known again is not kept.
        assert (tmp_path / ".out.partial").exists() == (digest is not None)
    again = Watched(source)
    export(again.opened, out, "llama")
    assert 0 < len(again.reads) < len(list(parameter_names(source.state.model)))
    export(source, tmp_path / "straight", "llama")
    assert contents(out) == contents(tmp_path / "straight")
    # Of another format nothing is taken.
    with pytest.raises(KeyboardInterrupt):
        export(Watched(source, until=12).opened, tmp_path / "other", "llama")
    export(source, tmp_path / "other", "granite")
    export(source, tmp_path / "granite", "granite")
    assert contents(tmp_path / "other") == contents(tmp_path / "granite")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_too_little_room_is_said_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", ["total", "used", "free"])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, 1000))
    watched = Watched(source_of(PLAIN))
    with pytest.raises(MachineError, match=r"out: needs 0\.0 GB and 0\.0 GB are free"):
        export(watched.opened, tmp_path / "out", "granite")
    assert not watched.reads and not list(tmp_path.iterdir())


def test_llama_refuses_what_transformers_would(tmp_path: Path) -> None:
    model = PLAIN.model_copy(update={"hidden_size": 30})
    with pytest.raises(ConfigError, match="export as granite"):
        export(source_of(model), tmp_path / "out", "llama")
    export(source_of(model), tmp_path / "out", "granite")


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    export(source_of(PLAIN), out, "teleflm")
    with pytest.raises(CheckpointError, match="--force"):
        export(source_of(ODD), out, "granite")
    assert (out / "modeling_teleflm.py").exists()
    export(source_of(ODD), out, "granite", force=True)
    assert not (out / "modeling_teleflm.py").exists()
    assert json.loads((out / "config.json").read_text())["hidden_size"] == ODD.hidden_size


@pytest.mark.parametrize("name", ["manifest.json", "checkpoints/x"])
def test_force_replaces_exports_only(tmp_path: Path, name: str) -> None:
    precious = tmp_path / "run" / name
    precious.parent.mkdir(parents=True)
    precious.write_text("{}")
    with pytest.raises(CheckpointError, match="choose another folder"):
        export(source_of(PLAIN), tmp_path / "run", "granite", force=True)
    assert precious.exists()
    with pytest.raises(CheckpointError, match="is a file"):
        export(source_of(PLAIN), precious, "granite", force=True)


def test_a_full_disk_leaves_the_old_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    export(source_of(PLAIN), out, "granite")
    before = contents(out)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(folder_module, "write_file", full)
    with pytest.raises(MachineError, match="No space left"):
        export(source_of(ODD), out, "llama", force=True)
    assert contents(out) == before
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_special_ids_are_the_tokenizer_s(tmp_path: Path) -> None:
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    added = [{"id": 7, "content": "<|begin|>"}, {"id": 9, "content": "<|end|>"}]
    (folder / "tokenizer.json").write_text(json.dumps({"added_tokens": added}))
    named = {"bos_token": "<|begin|>", "eos_token": {"content": "<|end|>"}, "pad_token": None}
    (folder / "tokenizer_config.json").write_text(json.dumps(named))
    export(source_of(PLAIN, tokenizer=folder), tmp_path / "out", "granite")
    expected = {"bos_token_id": 7, "eos_token_id": 9, "pad_token_id": None}
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text()) == expected
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert {key: written[key] for key in expected} == expected


def test_ids_without_a_tokenizer_are_not_made_up(tmp_path: Path) -> None:
    export(source_of(PLAIN), tmp_path / "out", "granite")
    ids = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert ids == {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}


def test_the_start_of_a_folder_is_the_one_transformers_takes(
    tokenizer_dir: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    export(source_of(PLAIN, tokenizer=tokenizer_dir), out, "granite")
    generation, config = out / "generation_config.json", out / "config.json"
    written = json.loads(config.read_text())
    config.write_text(json.dumps({**written, "bos_token_id": 5}))
    assert Tokenizer.load(out).encode_prompt("") == [2]
    generation.unlink()
    assert Tokenizer.load(out).encode_prompt("") == [5]
    config.write_text(json.dumps({**written, "bos_token_id": None}))
    assert Tokenizer.load(out).encode_prompt("") == [2], "as in training, where nothing is named"


def test_the_card_tells_the_story(tmp_path: Path) -> None:
    proof = {
        "max_relative_logit_error": 2.5e-15,
        "dtype": "float64",
        "steps": 30,
        "max_relative_loss_difference": 3e-16,
        "exact": True,
    }
    lineage = (
        Event.model_validate({"operator": "init", "from": None, "to": PLAIN}),
        Event.model_validate(
            {"operator": "mask", "from": PLAIN, "to": GROWN, "step": 90, "tokens": 4321, "ramp": 30}
            | {"certificate": proof, "layers": (0, 2)}
        ),
    )
    source = source_of(GROWN, step=100, tokens=9876, lineage=lineage)
    facts = CardFacts(bpb={"english": 1.2345})
    export(source, tmp_path / "out", "teleflm", card=facts)
    card = (tmp_path / "out" / "README.md").read_text()
    for fact in (
        "grown once",
        "9,876 tokens",
        "33%",
        "| grown by masks, open after 30 steps | 3 | 48 | 6 | 56 |",
        "4,321 | 0 |",
        "2.5e-15",
        "3.0e-16",
        "| english | 1.2345 |",
        "trust_remote_code=True",
        "| num_key_value_heads | 6 |",
    ):
        assert fact in card
    assert "AutoTokenizer" not in card


def test_published_shape_keeps_the_logit_multiplier() -> None:
    from teleflm.config.huggingface import to_huggingface

    written = to_huggingface(resolve_model("tele-flm-52b"), "granite")
    assert (written["logits_scaling"], written["attention_multiplier"]) == (32.0, 128**-0.5)
