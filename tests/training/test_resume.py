"""Resume from any checkpoint repeats the uninterrupted run bit for bit."""

from pathlib import Path
from typing import Any

import pytest
import torch

from teleflm.checkpoint.load import checkpoints, find_checkpoint, load_checkpoint
from teleflm.data.store import TokenStore
from teleflm.errors import ConfigError
from teleflm.training.loop import train
from teleflm.training.start import resolve_config
from tests.tiny import assert_same_run, cut_back, run_config, run_fields

STEPS = 7
EVERY_STEP: dict[str, Any] = {
    "training": {"steps": STEPS, "micro_batch": 2},
    "checkpoint": {"every": 1, "keep": 99},
    "optimizer": {"weight_decay": 0.1, "clip": 0.3},
}
# The ramp ends at step 5: steps before, at and after its end are gone on from.
GROWTH = {
    "to": {
        "hidden_size": 40,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "num_key_value_heads": 3,
        "output_mult": 1.5,
    },
    "ramp": 5,
    "place": "distance",
}
KINDS = [("fp32", None), ("bf16", None), ("bf16", GROWTH), ("fp64", GROWTH)]


def sections(dtype: str, growth: Any) -> dict[str, Any]:
    training = {**EVERY_STEP["training"], "dtype": dtype}
    grown = {"growth": growth} if growth else {}
    return {**EVERY_STEP, "training": training, **grown}


@pytest.mark.parametrize(("dtype", "growth"), KINDS, ids=lambda value: str(value)[:6])
def test_from_any_checkpoint_the_same_bits(
    store: TokenStore, tmp_path: Path, dtype: str, growth: Any
) -> None:
    whole = train(run_config(store.path, tmp_path / "whole", **sections(dtype, growth)))
    assert len(checkpoints(whole)) == STEPS + 1
    for step in range(STEPS):
        resumed = cut_back(whole, tmp_path / f"from-{step}", step)
        torch.manual_seed(step)  # a run takes nothing from the global generator
        train(run_config(store.path, resumed, **sections(dtype, growth)))
        assert_same_run(resumed, whole)


def test_documents_that_do_not_see_each_other(store: TokenStore, tmp_path: Path) -> None:
    masked = {**sections("fp32", GROWTH), "data": {"document_mask": True}}
    whole = train(run_config(store.path, tmp_path / "whole", **masked))
    resumed = cut_back(whole, tmp_path / "resumed", 3)
    train(run_config(store.path, resumed, **masked))
    assert_same_run(resumed, whole)
    # Without the mask it is another run.
    other = cut_back(whole, tmp_path / "other", 3)
    with pytest.raises(ConfigError, match=r"data\.document_mask = True, this one False"):
        train(run_config(store.path, other, **sections("fp32", GROWTH)))


def test_every_later_checkpoint_is_the_same(store: TokenStore, tmp_path: Path) -> None:
    # Not the files: the library writes their headers in any order.
    whole = train(run_config(store.path, tmp_path / "whole", **sections("bf16", GROWTH)))
    resumed = cut_back(whole, tmp_path / "resumed", 2)
    train(run_config(store.path, resumed, **sections("bf16", GROWTH)))
    for one, other in zip(checkpoints(whole), checkpoints(resumed), strict=True):
        expected, found = load_checkpoint(one)[1], load_checkpoint(other)[1]
        for field in ("weights", "exp_avg", "exp_avg_sq"):
            for name, tensor in getattr(expected, field).items():
                assert torch.equal(getattr(found, field)[name], tensor), (one.name, field, name)
        assert (found.step, found.adam_steps, found.tokens) == (
            expected.step,
            expected.adam_steps,
            expected.tokens,
        )


def test_a_stage_that_starts_from_a_checkpoint(store: TokenStore, tmp_path: Path) -> None:
    first = train(run_config(store.path, tmp_path / "first"))

    def stage(folder: Path, **more: Any) -> Path:
        fields = run_fields(store.path, folder, **EVERY_STEP, **more)
        del fields["model"]
        fields["start_from"] = str(find_checkpoint(first))
        return train(resolve_config(fields, "stage"))

    for more in ({}, {"growth": GROWTH}):
        whole = stage(tmp_path / f"whole-{len(more)}", **more)
        resumed = cut_back(whole, tmp_path / f"resumed-{len(more)}", 6 + 3)
        stage(resumed, **more)
        assert_same_run(resumed, whole)


def test_another_seed_is_another_run(store: TokenStore, tmp_path: Path) -> None:
    # Else the tests above could pass on runs that never learn.
    one = train(run_config(store.path, tmp_path / "one"))
    other = train(run_config(store.path, tmp_path / "other", seed=4))
    with pytest.raises(AssertionError):
        assert_same_run(one, other)
