"""Many ranks certify together what one does, and find the same faults."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from teleflm.checkpoint.certified import kept_certificate
from teleflm.checkpoint.load import find_checkpoint, load_checkpoint
from teleflm.checkpoint.manifest import read_manifest
from teleflm.checkpoint.save import save_checkpoint
from teleflm.config.growth import WidthConfig
from teleflm.data.store import TokenStore
from teleflm.growth.grow import Growth
from teleflm.growth.state import Kind
from teleflm.training.growing import grow_checkpoint
from tests.distributed.certifying import (
    certify,
    certify_on_one_rank,
    command,
    logits,
    regrown_but_for_one_piece,
)
from tests.distributed.resume import train_up_to
from tests.distributed.test_growth import TWICE
from tests.distributed.test_resume import ALL_AXES, MODEL, run_of
from tests.distributed.world import World

LAYOUT = {"tp": 2, "pp": 2, "dp": 2}
# Each token that the parent writes for its trajectory takes the ranks a hundredth of a second and
# more: so few positions.
SHORT = {"max_position_embeddings": 5}


@pytest.fixture(scope="module")
def parent(store: TokenStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps."""
    data = run_of(store, tmp_path_factory.mktemp("parent") / "run")
    data |= {"model": {**MODEL, **SHORT}, "growth": None}
    data["data"] = {**data["data"], "sequence_length": 4}
    train_up_to(data, 4, {})
    return Path(data["run_dir"])


def grown(parent: Path, out: Path, width: str, depth: Any) -> Path:
    model = read_manifest(find_checkpoint(parent)).model.model_copy(update=TWICE)
    how = Growth(model, WidthConfig.model_validate(width), depth, place="even", ramp=3, seed=5)
    grow_checkpoint(parent, out, how)
    return out


@pytest.fixture
def cloned(parent: Path, tmp_path: Path) -> Path:
    """The run, grown by clones, whose symmetry is broken, and layers behind masks."""
    return grown(parent, tmp_path / "cloned", "clone", "mask")


@pytest.mark.parametrize(("width", "steps"), [("mask", 2), ("zero", 0)])
def test_a_growth_is_certified_on_all_axes(
    eight: World, tmp_path: Path, parent: Path, width: str, steps: int
) -> None:
    child = grown(parent, tmp_path / "child", width, width)
    found, *others = eight.run(certify, parent, child, ALL_AXES)
    assert all(other == found for other in others)
    assert found["exact"] and found["regrown"] and found["layout"] == LAYOUT
    assert found["function"]["max_relative_logit_error"] <= 1e-12
    assert len(found["function"]["layers"]) == 3 and found["first_difference"] is None
    assert found["trajectory"]["steps"] == steps
    assert found["trajectory"]["max_relative_loss_difference"] <= 1e-12


def test_a_moment_that_was_not_divided_is_found(
    eight: World, tmp_path: Path, parent: Path, cloned: Path
) -> None:
    rewrite(cloned, tmp_path / "bad", "exp_avg_sq", "model.layers.0.mlp.down_proj.weight", 4.0)
    found = eight.run(certify, parent, tmp_path / "bad", ALL_AXES)[0]
    assert found["function"]["max_relative_logit_error"] <= 1e-12
    assert found["trajectory"]["max_relative_loss_difference"] > 1e-9
    assert found["regrown"] is False and not found["exact"]


def rewrite(source: Path, out: Path, kind: Kind, name: str, factor: float) -> None:
    """A copy of a checkpoint with one of its tensors multiplied."""
    manifest, state = load_checkpoint(source)
    state.tensors(kind)[name] *= factor
    save_checkpoint(out, state, manifest.config, None)


def test_one_wrong_entry_is_found_whosever_share_it_is_in(
    eight: World, parent: Path, cloned: Path
) -> None:
    for found in eight.run(regrown_but_for_one_piece, parent, cloned):
        assert found == [True, *[False] * 8]


def test_without_memory_on_one_rank_none_trains(eight: World, parent: Path, cloned: Path) -> None:
    for found in eight.run(certify, parent, cloned, ALL_AXES, 5):
        assert found["exact"] and found["regrown"] and found["trajectory"] is None


def test_in_memory_one_rank_certifies_by_itself(eight: World, parent: Path, cloned: Path) -> None:
    assert eight.run(certify_on_one_rank, parent, cloned) == [*[None] * 7, True]


def test_ranks_compute_a_streamed_network_together(eight: World, cloned: Path) -> None:
    tokens = torch.arange(10).view(2, 5)
    right = logits(cloned, tokens)
    assert isinstance(right, torch.Tensor)
    for found in eight.run(logits, cloned, tokens):
        # Of the largest: a logit that happens to be next to nothing has rounding of its own.
        assert (found - right).abs().max() <= 1e-14 * right.abs().max()
    # What one of them cannot read ends it for all, and at once.
    for said in eight.run(logits, cloned, tokens, 5):
        assert said == "model.layers.0.mlp.down_proj.weight is not there"


def test_the_command_is_told_a_layout(eight: World, parent: Path, cloned: Path) -> None:
    verify = ("verify", parent, cloned, "--json", "--layout")
    (code, out, err), *others = eight.run(command, *verify, "tp=2,pp=2")
    assert (code, err) == (0, "") and others == [(0, "", "")] * 7
    found = json.loads(out)
    assert found["exact"] and found["layout"] == LAYOUT and found["trajectory"]["steps"] == 2
    assert found["trajectory"]["max_relative_loss_difference"] <= 1e-12
    kept = kept_certificate(cloned)
    assert kept is not None and kept["layout"] == LAYOUT
    for layout, words in {
        "pp=4": "4 stages, but parent.num_hidden_layers is 2; the nearest layouts of 8 ranks",
        "tp=8": "parallel.tp 8 does not divide parent.num_key_value_heads 4; the nearest layouts",
        "tq=2": "--layout: unknown key 'tq'; did you mean 'tp'?",
        "tp": "override 'tp': write it as key.sub=value",
    }.items():
        (code, out, err), *others = eight.run(command, *verify, layout)
        assert (code, out) == (2, "") and words in err, err
        assert others == [(2, "", "")] * 7
