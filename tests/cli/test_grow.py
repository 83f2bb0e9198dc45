"""`teleflm grow` and `verify` as a user has them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers

from teleflm.checkpoint import hub_format
from teleflm.checkpoint.load import find_checkpoint, load_checkpoint
from teleflm.checkpoint.manifest import manifest_digest
from teleflm.checkpoint.open import load, open_state
from teleflm.checkpoint.save import save_checkpoint
from teleflm.model.axes import parameter_count
from tests.conftest import Command

DOUBLE = """
hidden_size: 64
intermediate_size: 96
num_attention_heads: 8
num_key_value_heads: 4
num_hidden_layers: 4
"""


@pytest.fixture
def double(tmp_path: Path) -> str:
    path = tmp_path / "double.yaml"
    path.write_text(DOUBLE, encoding="utf-8")
    return str(path)


def test_a_dry_run_prints_the_plan_and_writes_nothing(
    teleflm: Command, run: Path, tmp_path: Path, double: str
) -> None:
    out = tmp_path / "out"
    width = "hidden=clone,heads=clone,ffn=zero"
    done = teleflm("grow", str(run), str(out), "--to", double, "--width", width, "--dry-run")
    assert done.code == 0, done.err
    assert done.out.splitlines()[:3] == [
        "clone: entries over again; the same function",
        "  hidden_size: 32 → 64",
        "  num_attention_heads: 4 → 8",
    ]
    for line in (
        "zero: new entries behind zeros; the same function",
        "  intermediate_size: 48 → 96",
        "mask: new entries behind masks",
        "  num_hidden_layers: 2 → 4",
        "  masks open over 5000 steps",
        "  symmetry of the clones: noise",
        "layers were measured on the run's own text",
        " GB on disk, about ",
    ):
        assert line in done.out
    assert [path.name for path in tmp_path.iterdir()] == ["double.yaml"]


def test_grown_verified_exported_and_told_of(
    teleflm: Command, run: Path, tmp_path: Path, double: str
) -> None:
    out = tmp_path / "out"
    grow = ("grow", str(run), str(out), "--to", double, "--width", "clone", "--seed", "7")
    assert teleflm(*grow, "--depth", "zero").code == 0
    verified = teleflm("verify", str(run), str(out), "--json")
    assert verified.code == 0, verified.err
    found = json.loads(verified.out)
    assert found["operators"] == ["clone", "zero"] and found["regrown"] is True
    assert found["function"]["max_relative_logit_error"] <= 1e-12
    assert found["trajectory"]["steps"] == 0 and found["exact"] is True
    kept = json.loads((out / "certificate.json").read_text())
    assert kept == {**found, "checkpoint": manifest_digest(out)}
    # From any export one can say where it came from.
    event = open_state(out).state.lineage[-1]
    assert (event.operator, event.seed) == ("zero", 7)
    assert event.parent == manifest_digest(find_checkpoint(run))
    assert event.certificate is not None and event.certificate.exact
    assert teleflm("export", str(out), str(tmp_path / "export")).code == 0
    card = (tmp_path / "export" / "README.md").read_text()
    assert "## Growth certificates" in card and str(event.parent)[:12] in card
    # A certificate of another checkpoint says nothing.
    assert teleflm(*grow, "--depth", "mask", "--force").code == 0
    assert open_state(out).state.lineage[-1].certificate is None


def contents(folder: Path) -> dict[str, bytes]:
    """All but the card, which has the folder's name."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".md"}


@pytest.mark.parametrize("width", ["mask", "clone", "zero"])
@pytest.mark.parametrize("kind", ["granite", "llama", "teleflm"])
def test_a_growth_into_a_folder_is_that_of_a_checkpoint_exported(
    teleflm: Command,
    run: Path,
    tmp_path: Path,
    double: str,
    kind: str,
    width: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hub_format, "_SHARD_BYTES", 100_000)
    out = tmp_path / "out"
    grow = ("--to", double, "--width", width, "--seed", "7")
    planned = teleflm("grow", run, out, *grow, "--format", kind, "--dry-run")
    assert planned.code == 0 and not out.exists()
    assert f"as {kind}: weights in fp32, masks folded in; moments are left behind" in planned.out
    done = teleflm("grow", run, out, *grow, "--format", kind)
    assert done.code == 0, done.err
    assert f"{out}: as {kind} in fp32, the function at step 6" in done.out
    # Apart from the header of each file: its length, and text.
    files = list(out.glob("*.safetensors"))
    headers = sum(8 + int.from_bytes(file.read_bytes()[:8], "little") for file in files)
    size = sum(file.stat().st_size for file in files) - headers
    assert len(files) > 2 and f"{size / 1e9:,.3f} GB on disk" in planned.out
    assert size == 4 * parameter_count(open_state(out).state.model)

    assert teleflm("grow", run, tmp_path / "grown", *grow).code == 0
    assert teleflm("export", tmp_path / "grown", tmp_path / "two", "--format", kind).code == 0
    assert contents(out) == contents(tmp_path / "two")
    card, parent = (out / "README.md").read_text(), manifest_digest(find_checkpoint(run))
    assert card.count(f"| 7 | {parent[:12]} |") == (1 if width == "mask" else 2)

    verified = teleflm("verify", run, out)
    assert verified.code == 0, verified.err
    if kind == "teleflm":
        return  # its code is run apart from this process, in tests/checkpoint/test_export.py
    tokens = torch.randint(424, (2, 40), generator=torch.Generator().manual_seed(1))
    network = transformers.AutoModelForCausalLM.from_pretrained(out)
    with torch.no_grad():
        ours, theirs = load(run)(tokens), network(tokens).logits
    assert float((ours - theirs).abs().max() / ours.abs().max()) <= 1e-5


def test_a_folder_is_not_put_where_it_cannot_be(
    teleflm: Command, run: Path, grown: Path, tmp_path: Path, double: str
) -> None:
    out = tmp_path / "out"
    odd = tmp_path / "odd.yaml"
    odd.write_text("hidden_size: 36\nnum_attention_heads: 8\n")
    for dry in ((), ("--dry-run",)):
        refused = teleflm("grow", run, out, "--to", odd, "--format", "llama", *dry)
        assert refused.code == 2
        assert "hidden_size 36, no multiple of num_attention_heads 8, cannot be said" in refused.err
    refused = teleflm("grow", run, grown, "--to", double, "--format", "granite", "--force")
    assert refused.code == 2 and "so it is no earlier export and stays" in refused.err
    grow = ("grow", run, out, "--to", double, "--format", "granite")
    assert teleflm(*grow).code == 0
    assert "--force" in teleflm(*grow).err
    assert teleflm(*grow, "--force").code == 0
    # Nor is a checkpoint put in the place of a folder.
    refused = teleflm("grow", run, out, "--to", double, "--force")
    assert refused.code == 2 and "is no checkpoint, so it stays" in refused.err


def test_what_was_trained_since_has_no_certificate_of_its_own(
    teleflm: Command, run: Path, tmp_path: Path, double: str
) -> None:
    assert teleflm("grow", str(run), str(tmp_path / "out"), "--to", double).code == 0
    state = load_checkpoint(tmp_path / "out")[1]
    later = tmp_path / "later"
    save_checkpoint(later, replace(state, step=state.step + 1), None, None)
    verified = teleflm("verify", str(run), str(later))
    assert "trained 1 steps since it was grown" in verified.err
    assert not (later / "certificate.json").exists()
    assert open_state(later).state.lineage[-1].certificate is None


def test_a_certificate_that_cannot_be_kept_is_still_told(
    teleflm: Command, run: Path, tmp_path: Path, double: str
) -> None:
    out = tmp_path / "out"
    assert teleflm("grow", str(run), str(out), "--to", double).code == 0
    (out / "certificate.json").mkdir()
    verified = teleflm("verify", str(run), str(out), "--json")
    assert verified.code == 0 and json.loads(verified.out)["exact"] is True
    assert f"{out}: the certificate is not kept there" in verified.err


def test_a_layout_is_one_of_the_ranks_there_are(teleflm: Command, run: Path, grown: Path) -> None:
    for arguments, words in {
        (run, grown, "--layout", "tp=2"): "parallel.tp 2 × parallel.pp 1 does not divide 1 ranks",
        (run, "--layout", "tp=1"): "--layout: it lays a certificate out; give DST too",
    }.items():
        refused = teleflm("verify", *arguments)
        assert refused.code == 2 and words in refused.err, refused.err


def test_copies_are_said_to_be_another_function(
    teleflm: Command, run: Path, tmp_path: Path, double: str
) -> None:
    out = tmp_path / "out"
    grown = teleflm("grow", str(run), str(out), "--to", double, "--depth", "copy")
    assert "copy: layers over again; another function" in grown.out
    verified = teleflm("verify", str(run), str(out))
    assert verified.code == 1
    assert "copies of layers are another function" in verified.err


@pytest.mark.parametrize("kind", ["weights", "exp_avg", "exp_avg_sq"])
def test_a_source_that_is_not_finite_is_not_grown(
    teleflm: Command, run: Path, tmp_path: Path, double: str, kind: str
) -> None:
    state = load_checkpoint(find_checkpoint(run))[1]
    getattr(state, kind)["model.layers.1.mlp.down_proj.weight"][3, 4] = torch.nan
    save_checkpoint(tmp_path / "bad", state, None, None)
    grow = teleflm("grow", str(tmp_path / "bad"), str(tmp_path / "out"), "--to", double)
    assert grow.code == 2
    words = f"{kind} of model.layers.1.mlp.down_proj.weight are not finite"
    assert words in grow.err
    assert not (tmp_path / "out").exists()
    # A folder has no moments.
    for verb in (("grow", "--to", double, "--format", "llama"), ("export",)):
        done = teleflm(*verb, tmp_path / "bad", tmp_path / verb[0])
        assert (done.code, words in done.err) == ((2, True) if kind == "weights" else (0, False))
        assert (tmp_path / verb[0]).exists() == (kind != "weights")


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (("--width", "clone"), "hidden_size 40 is no multiple of 32"),
        (("--width", "hidden=cloned"), "give mask, clone or zero"),
        (("--width", "depth=clone"), "give mask, clone or zero"),
        (("--place", "1,2,3"), "it must name for each of the"),
    ],
)
def test_what_cannot_be_done_is_refused(
    teleflm: Command, run: Path, tmp_path: Path, option: tuple[str, str], words: str
) -> None:
    target = tmp_path / "to.yaml"
    target.write_text("hidden_size: 40\nnum_attention_heads: 4\nnum_hidden_layers: 3\n")
    for dry in ((), ("--dry-run",)):
        done = teleflm("grow", str(run), str(tmp_path / "out"), "--to", str(target), *option, *dry)
        assert done.code == 2 and words in done.err, done.err
    assert not (tmp_path / "out").exists()
