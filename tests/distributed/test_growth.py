"""Growth on many ranks is that of one process: at the start of a run, and on disk."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from teleflm.checkpoint.load import load_checkpoint
from teleflm.checkpoint.manifest import read_manifest
from teleflm.checkpoint.open import open_state
from teleflm.data.store import TokenStore
from teleflm.report.summary import read_summary
from tests.distributed.growing import grow_in_small_files, grow_into_shards, grow_to, run_stages
from tests.distributed.resume import train_up_to
from tests.distributed.test_resume import ALL_AXES, counts, differences, run_of, state_of
from tests.distributed.world import World
from tests.tiny import trajectory

TWICE = {
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
}
HOW: dict[str, dict[str, Any]] = {
    "mask": {"width": "mask", "ramp": 3},
    "clone": {"width": "clone", "depth": "zero"},
    "zero": {"width": "zero", "depth": "zero"},
    "copy": {"width": "hidden=clone,heads=clone,ffn=mask", "depth": "copy", "ramp": 3},
}


@pytest.fixture(scope="module")
def parent(eight: World, store: TokenStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of eight data-parallel ranks."""
    run_dir = tmp_path_factory.mktemp("parent") / "run"
    data = {**run_of(store, run_dir), "growth": None}
    data["training"] = {**data["training"], "micro_batch": 1}
    eight.run(train_up_to, data, 4, {"dp": 8})
    return run_dir


@pytest.mark.parametrize("how", HOW)
def test_a_checkpoint_of_eight_copies_grows_into_any_layout(
    eight: World, store: TokenStore, tmp_path: Path, parent: Path, how: str
) -> None:
    def child(name: str) -> dict[str, Any]:
        data = run_of(store, tmp_path / name)
        del data["model"]
        growth = {"to": TWICE, "place": "even", **HOW[how]}
        return {**data, "start_from": str(parent), "seed": 5, "growth": growth}

    train_up_to(child("one"), 4, {})
    eight.run(train_up_to, child("many"), 4, ALL_AXES)
    found, right = trajectory(tmp_path / "many"), trajectory(tmp_path / "one")
    for line, expected in zip(found, right, strict=True):
        assert line["loss"] == pytest.approx(expected["loss"], rel=1e-12)
        assert line["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-9)
    many, one = state_of(tmp_path / "many"), state_of(tmp_path / "one")
    assert counts(many) == counts(one)
    assert differences(many, one) <= 1e-9


def test_ranks_share_the_files_of_a_growth(four: World, tmp_path: Path, parent: Path) -> None:
    grow_to(parent, tmp_path / "one", TWICE)
    four.run(grow_in_small_files, parent, tmp_path / "many", TWICE)
    one, other = (load_checkpoint(tmp_path / name)[1] for name in ("one", "many"))
    assert differences(other, one) == 0.0 and counts(other) == counts(one)
    assert len(read_manifest(tmp_path / "many").files) > 8


def test_ranks_share_the_files_of_a_grown_folder(four: World, tmp_path: Path, parent: Path) -> None:
    for name, grow in (("one", grow_into_shards), ("many", partial(four.run, grow_into_shards))):
        grow(parent, tmp_path / name, TWICE)
    one, many = (
        {path.name: path.read_bytes() for path in (tmp_path / name).glob("model-*")}
        for name in ("one", "many")
    )
    assert one == many and len(one) > 8
    assert open_state(tmp_path / "many").state.model.hidden_size == 48


def test_a_series_has_a_layout_for_each_stage(
    four: World, store: TokenStore, tmp_path: Path
) -> None:
    def series(name: str, layouts: list[dict[str, Any]]) -> dict[str, Any]:
        run = run_of(store, tmp_path / name)
        shared = {key: run[key] for key in ("seed", "data", "optimizer", "schedule", "evaluation")}
        training = {"steps": 4, "global_batch": 8, "micro_batch": 2, "dtype": "fp64"}
        stages = [
            # A short context, as the certificate's text is as long.
            {
                "name": "small",
                "model": {**run["model"], "max_position_embeddings": 17},
                "parallel": layouts[0],
            },
            {
                "name": "large",
                "growth": {"to": TWICE, "place": "even", "width": "clone", "ramp": 2},
                "parallel": layouts[1],
            },
        ]
        return {
            "series_dir": str(tmp_path / name),
            "run": {**shared, "training": training},
            "stages": stages,
            "exports": ["llama"],
        }

    run_stages(series("one", [{}, {}]))
    layouts: list[dict[str, Any]] = [{"dp": 4}, {"tp": 2, "pp": 2}]
    four.run(run_stages, series("many", layouts))
    four.run(run_stages, series("many", layouts))  # all is done
    for stage in ("small", "large"):
        many, one = (tmp_path / name / "stages" / stage for name in ("many", "one"))
        for line, expected in zip(trajectory(many), trajectory(one), strict=True):
            assert line["loss"] == pytest.approx(expected["loss"], rel=1e-9)
    found = read_summary(tmp_path / "many")
    assert found.growths[0].certificate is not None and found.growths[0].certificate.exact
    assert (tmp_path / "many" / "report.html").is_file()
