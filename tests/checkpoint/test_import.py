"""Models from elsewhere become checkpoints: the same function, piece by piece, and nothing runs."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from teleflm.checkpoint import pretrained, stream
from teleflm.checkpoint.export import export
from teleflm.checkpoint.load import load_checkpoint
from teleflm.checkpoint.manifest import problems
from teleflm.checkpoint.open import open_state
from teleflm.checkpoint.pretrained import open_pretrained
from teleflm.checkpoint.stream import write_state
from teleflm.checkpoint.weight_files import Stored
from teleflm.config.huggingface import weight_folds
from teleflm.config.resolve import resolve_model
from teleflm.errors import CheckpointError, MachineError
from teleflm.growth.state import KINDS, Kind
from teleflm.model.axes import PARAMETERS
from teleflm.model.region import Region, entries
from tests.conftest import Command
from tests.families import (
    FAMILIES,
    GRANITE,
    PICKLE,
    Q_PROJ,
    UP_PROJ,
    as_pickles,
    logits_of,
    network_of,
    ours,
    relative_error,
    save,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save(network_of("llama", torch.float32), tmp_path / "llama")


@pytest.fixture
def pickled(folder: Path) -> Path:
    """All of it in one pickle."""
    state = dict(network_of("llama", torch.float32).state_dict())
    for file in (*folder.glob("*.safetensors"), folder / pretrained.INDEX):
        file.unlink()
    torch.save(state, folder / PICKLE)
    return folder


def test_a_float64_model_stays_one(tmp_path: Path) -> None:
    network = network_of("llama", torch.float64)
    state = open_pretrained(save(network, tmp_path / "llama"))
    assert state.dtype is torch.float64
    held = state.in_memory()
    assert all(t.dtype is torch.float64 for kind in KINDS for t in held.tensors(kind).values())
    reference = logits_of(network)
    assert relative_error(ours(held.model, held.weights, torch.float64), reference) <= 1e-12


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_becomes_float32(dtype: torch.dtype, tmp_path: Path) -> None:
    network = network_of("llama", dtype)
    folder = save(network, tmp_path / "llama")
    state = open_pretrained(folder)
    assert state.dtype is torch.float32
    lazily = state.in_memory().weights
    for name, weight in network.state_dict().items():
        assert torch.equal(lazily[name], weight.float())
        assert lazily[name].dtype is torch.float32


@pytest.mark.parametrize(
    ("multipliers", "folds", "dtype"),
    [
        # 1/√12 as a file says it: the weights stay bit for bit.
        ((1.0, 12**-0.5), (1.0, 1.0), torch.float32),
        ((0.5, 12**-0.5), (0.5, 1.0), torch.float32),
        ((0.22, 0.4), (0.22, 0.4 * 12**0.5), torch.float64),
    ],
)
def test_a_fold_takes_float64_only_where_it_must(
    multipliers: tuple[float, float],
    folds: tuple[float, float],
    dtype: torch.dtype,
    tmp_path: Path,
) -> None:
    network = network_of("granite", torch.float16)
    network.config.residual_multiplier, network.config.attention_multiplier = multipliers
    held = open_pretrained(save(network, tmp_path / "granite")).in_memory()
    for name, fold in zip((Q_PROJ.replace("q_", "o_"), Q_PROJ), folds, strict=True):
        assert torch.equal(held.weights[name], network.state_dict()[name].to(dtype) * fold)
        assert held.weights[name].dtype is held.exp_avg[name].dtype is dtype
    assert held.weights[UP_PROJ].dtype is torch.float32


def test_folds_are_of_parameters_and_reach_every_branch() -> None:
    model = resolve_model("nano-52b")
    folds = weight_folds({**GRANITE, "model_type": "granite"}, model, "config.json")
    assert folds.keys() <= PARAMETERS.keys()
    branches = {pattern for pattern, row in PARAMETERS.items() if row.writes_branch}
    assert {pattern for pattern, factor in folds.items() if factor == 0.22} == branches
    # Llama's and Mistral's own code knows no such fields.
    assert not weight_folds({**GRANITE, "model_type": "llama"}, model, "config.json")


def test_an_import_exports_as_llama(tmp_path: Path) -> None:
    network = network_of("granite", torch.float32)
    export(open_state(save(network, tmp_path / "granite")), tmp_path / "exported", "llama")
    back = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "exported").eval()
    assert type(back).__name__ == "LlamaForCausalLM"
    assert relative_error(logits_of(back), logits_of(network)) <= 1e-5
    assert "| imported |" in (tmp_path / "exported" / "README.md").read_text()


def test_any_region_is_read_by_itself(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pickles = as_pickles(save(network_of("llama", torch.float32), tmp_path / "pickles"))
    whole_state = network_of("llama", torch.float32).state_dict()
    opened, asked = pretrained.opened, []

    @contextmanager
    def watched(file: Path) -> Iterator[dict[str, Stored]]:
        def watch(stored: Stored) -> Stored:
            def read(region: Region) -> Tensor:
                asked.append(region)
                return stored.read(region)

            return replace(stored, read=read)

        with opened(file) as tensors:
            yield {name: watch(stored) for name, stored in tensors.items()}

    monkeypatch.setattr(pretrained, "opened", watched)
    for state in (open_pretrained(folder), open_pretrained(pickles)):
        assert not asked, "opening reads no values"
        for region in ((slice(3, 9), slice(1, 4)), (slice(2, 2), slice(0, 40))):
            part = state.read("weights", UP_PROJ, region)
            assert torch.equal(part, whole_state[UP_PROJ][region])
            assert part.untyped_storage().nbytes() == 4 * entries(region), "a copy of its own"
            assert asked == [region]
            asked.clear()
        moment = state.read("exp_avg", UP_PROJ, (slice(3, 9), slice(1, 4)))
        assert moment.shape == (6, 3)
        assert not asked


def test_the_lineage_names_the_files(folder: Path) -> None:
    (event,) = open_pretrained(folder).lineage
    names = ["config.json", *sorted(p.name for p in folder.glob("*.safetensors"))]
    # What `sha256sum config.json *.safetensors | sha256sum` prints.
    lines = [f"{hashlib.sha256((folder / n).read_bytes()).hexdigest()}  {n}\n" for n in names]
    assert event.operator == "import"
    assert event.parent == hashlib.sha256("".join(lines).encode()).hexdigest()


class Hostile:
    """Unpickled by `pickle`, it runs a command."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self._path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_hostile_pickle_is_refused_and_nothing_runs(
    zipped: bool, pickled: Path, tmp_path: Path, teleflm: Command
) -> None:
    state = torch.load(pickled / PICKLE)
    torch.save(
        {**state, "evil": Hostile(tmp_path / "ran")},
        pickled / PICKLE,
        _use_new_zipfile_serialization=zipped,
    )
    with pytest.raises(CheckpointError, match=PICKLE):
        open_pretrained(pickled)
    done = teleflm("import", pickled, tmp_path / "out")
    assert (done.code, done.out) == (2, "")
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "out").exists()
    torch.load(pickled / PICKLE, weights_only=False)
    assert (tmp_path / "ran").exists(), "it would have run"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: s.pop(Q_PROJ), f"tensor {Q_PROJ} is missing"),
        (lambda s: s.update({"model.layers.0.self_attn.q_proj.bias": torch.ones(2)}), "proj.bias"),
        (lambda s: s.update({Q_PROJ: s[Q_PROJ][:-1]}), rf"{Q_PROJ} is \[47, 40\], .*\[48, 40\]"),
        (
            lambda s: s.update({Q_PROJ: s[Q_PROJ].to(torch.int8)}),
            f"{Q_PROJ} is stored as torch.int8",
        ),
        (lambda s: s.update({Q_PROJ: s[Q_PROJ].to_sparse()}), f"{Q_PROJ} is stored as .*sparse"),
        (lambda s: s.update({Q_PROJ: s[Q_PROJ].to("meta")}), f"{Q_PROJ} is stored as .*meta"),
        (lambda s: s.update({"step": 3}), "'step' is a int, not a tensor"),
        (lambda s: s.update({"model": {}}), "'model' is a dict, not a tensor"),
    ],
)
def test_foreign_tensors_in_a_pickle_are_refused(
    pickled: Path, spoil: Callable[[dict[str, Any]], Any], message: str
) -> None:
    state = torch.load(pickled / PICKLE)
    spoil(state)
    torch.save(state, pickled / PICKLE)
    with pytest.raises(CheckpointError, match=message):
        open_pretrained(pickled)


def test_what_is_no_pickle_of_tensors_is_named(pickled: Path) -> None:
    torch.save([torch.ones(2)], pickled / PICKLE)
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin: holds a list"):
        open_pretrained(pickled)
    for content in (b"", b"PK\x03\x04", b"\x80\x02}."):
        (pickled / PICKLE).write_bytes(content)
        with pytest.raises(CheckpointError, match=r"pytorch_model\.bin: damaged"):
            open_pretrained(pickled)


def _index(folder: Path, **changes: str | None) -> None:
    """Change what the index says of these tensors; None drops one."""
    path = folder / pretrained.INDEX
    index = json.loads(path.read_text())
    places = {**index["weight_map"], **changes}
    index["weight_map"] = {name: file for name, file in places.items() if file is not None}
    path.write_text(json.dumps(index))


def _other_file(folder: Path, name: str) -> Path:
    """A shard without that tensor, later in transformers' order than the one with it."""
    files = json.loads((folder / pretrained.INDEX).read_text())["weight_map"]
    return folder / max(set(files.values()) - {files[name]})


def _single(folder: Path) -> None:
    network_of("granite", torch.float32).save_pretrained(folder.parent / "other")
    (folder.parent / "other" / pretrained.WEIGHTS).rename(folder / pretrained.WEIGHTS)


def _doubled(folder: Path) -> None:
    other = _other_file(folder, Q_PROJ)
    save_file({**load_file(other), Q_PROJ: torch.ones(48, 40)}, other, {"format": "pt"})


def _left_behind(folder: Path) -> None:
    file = next(iter(folder.glob("*-00001-of-*.safetensors")))
    shutil.copy(file, folder / "model-00001-of-00099.safetensors")


@pytest.mark.parametrize(
    ("spoil", "message", "loads"),
    [
        (_single, r"model\.safetensors: not of the same save as model-00001-of-\d+\.saf", True),
        (_doubled, rf"tensor {Q_PROJ} is in model-\S+ too by the index", True),
        (_left_behind, r"model-00001-of-00099\.safetensors: not of the same save", True),
        (lambda f: _index(f, **{Q_PROJ: None}), rf"tensor {Q_PROJ} is missing by the index", True),
        (
            lambda f: _index(f, **{Q_PROJ: _other_file(f, Q_PROJ).name}),
            rf"tensor {Q_PROJ} is .* by the index|{Q_PROJ} is missing, and the index says",
            True,
        ),
        (lambda f: _other_file(f, Q_PROJ).unlink(), r"\.safetensors: this shard is missing", False),
        (lambda f: (f / pretrained.INDEX).write_text('{"weight_map": {}}'), "no weights", False),
    ],
)
def test_files_of_two_saves_are_refused(
    folder: Path, spoil: Callable[[Path], Any], message: str, loads: bool
) -> None:
    spoil(folder)
    with pytest.raises(CheckpointError, match=message):
        open_pretrained(folder)
    # transformers chooses one of them in silence, where it loads anything.
    if loads:
        transformers.LlamaForCausalLM.from_pretrained(folder)


def test_transformers_reads_the_other_of_two_saves(folder: Path) -> None:
    # Why it is an error, and not ours to choose.
    before = transformers.LlamaForCausalLM.from_pretrained(folder).state_dict()[Q_PROJ]
    _doubled(folder)
    after = transformers.LlamaForCausalLM.from_pretrained(folder).state_dict()[Q_PROJ]
    assert after.equal(torch.ones(48, 40)) and not before.equal(after)


def test_tensors_that_the_index_keeps_back_are_seen(folder: Path) -> None:
    index = json.loads((folder / pretrained.INDEX).read_text())
    file = folder / index["weight_map"][Q_PROJ]
    save_file({**load_file(file), "model.layers.1.self_attn.q_proj.bias": torch.ones(48)}, file)
    with pytest.raises(CheckpointError, match=rf"{file.name}: tensor .*q_proj\.bias is not part"):
        open_pretrained(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("stored", ["safetensors", "pickles"])
def test_a_value_that_is_not_finite_is_named(
    folder: Path, stored: str, value: float, tmp_path: Path, teleflm: Command
) -> None:
    index = json.loads((folder / pretrained.INDEX).read_text())
    file = folder / index["weight_map"][Q_PROJ]
    tensors = load_file(file)
    tensors[Q_PROJ][17, 5] = value
    save_file(tensors, file)
    if stored == "pickles":
        file = as_pickles(folder) / file.with_suffix(".bin").name
    state = open_pretrained(folder)
    state.read("weights", Q_PROJ, (slice(0, 17), slice(0, 40)))
    message = rf"{file.name}: tensor {Q_PROJ} holds NaN or infinity"
    with pytest.raises(CheckpointError, match=message):
        state.read("weights", Q_PROJ, (slice(17, 18), slice(0, 40)))
    for verb in ("import", "export"):
        done = teleflm(verb, folder, tmp_path / "out")
        assert done.code == 2
        assert f"{file.name}: tensor {Q_PROJ} holds NaN or infinity" in done.err
        assert not (tmp_path / "out").exists()


def test_an_interrupted_import_goes_on(
    folder: Path, tmp_path: Path, teleflm: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "_FILE_BYTES", 10_000)
    state, out = open_pretrained(folder), tmp_path / "out"

    def failing(kind: Kind, name: str, region: Region) -> Tensor:
        if entries(region) and name == UP_PROJ.replace("0", "1"):
            raise OSError(5, "the disk is gone")
        return state.read(kind, name, region)

    with pytest.raises(MachineError, match=r"out: not written"):
        write_state(out, replace(state, read=failing), None)
    assert not out.exists()
    (left,) = tmp_path.glob(".out.partial")
    first = next(iter(sorted(left.glob("*.safetensors"))))
    written = first.stat()
    done = teleflm("import", folder, out)
    assert done.code == 0
    assert (out / first.name).stat().st_ino == written.st_ino, "what was finished is kept"
    assert (out / first.name).stat().st_mtime_ns == written.st_mtime_ns
    assert not list(problems(out))
    assert not list(tmp_path.glob(".out*"))
    _, held = load_checkpoint(out)
    for name, weight in open_pretrained(folder).in_memory().weights.items():
        assert torch.equal(held.weights[name], weight)


def test_the_verb_says_what_it_made_and_takes_the_tokenizer_along(
    tokenizer_dir: Path, tmp_path: Path, teleflm: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FAMILIES, "llama", ("Llama", {"vocab_size": 424}))
    folder = save(network_of("llama", torch.float32), tmp_path / "llama")
    bare = teleflm("import", folder, tmp_path / "bare")
    assert "without a tokenizer" in bare.out
    for file in tokenizer_dir.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    done = teleflm("import", folder, tmp_path / "out")
    network = network_of("llama", torch.float32)
    count = sum(parameter.numel() for parameter in network.parameters())
    assert done.out.startswith(f"{tmp_path / 'out'}: hidden 40, 2 layers, 4 heads in 2 groups")
    assert f"{count:,} parameters, with a tokenizer" in done.out
    assert "importing: " in done.err
    kept = sorted(file.name for file in (tmp_path / "out" / "tokenizer").iterdir())
    ids = ["generation_config.json", "special_ids.json"]
    assert kept == [*ids, "tokenizer.json", "tokenizer_config.json"]
    assert not list(problems(tmp_path / "out"))


def test_nothing_is_replaced_unasked(folder: Path, tmp_path: Path, teleflm: Command) -> None:
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    out = tmp_path / "out"
    out.mkdir()
    (out / "precious").write_text("words")
    for arguments, message in (
        ((folder, out), "exists and is no checkpoint"),
        ((folder, out, "--force"), "is no checkpoint, so it stays"),
        ((folder, folder, "--force"), "holds the model to import"),
        ((folder, tmp_path, "--force"), "holds the model to import"),
        ((tmp_path / "gone", tmp_path / "new"), "no config.json"),
    ):
        done = teleflm("import", *arguments)
        assert (done.code, done.out) == (2, ""), message
        assert message in done.err
    assert (out / "precious").read_text() == "words"
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    assert teleflm("import", folder, tmp_path / "twice").code == 0
    assert "--force to replace it" in teleflm("import", folder, tmp_path / "twice").err
    assert teleflm("import", folder, tmp_path / "twice", "--force").code == 0
    assert not list(problems(tmp_path / "twice"))
