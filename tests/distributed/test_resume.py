"""A run goes on as if nothing had been, on the same layout to the bit, on another to rounding."""

from pathlib import Path
from typing import Any

import pytest
import torch

from teleflm.checkpoint.load import find_checkpoint, load_checkpoint
from teleflm.data.store import TokenStore
from teleflm.files import read_jsonl
from teleflm.growth.state import TrainingState
from tests.distributed.resume import (
    settled_where_ranks_differ,
    train_through_faults,
    train_up_to,
)
from tests.distributed.world import World
from tests.talks import chat_store
from tests.tiny import run_fields, trajectory

MODEL = {
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "head_dim": 8,
    "max_position_embeddings": 64,
}
BIGGER = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "output_mult": 2.0}
STEPS = 20
ALL_AXES = {"tp": 2, "pp": 2}


def run_of(store: TokenStore, run_dir: Path) -> dict[str, Any]:
    """A growth whose ramp is open while the layout changes; the schedule does not see that."""
    return {
        "run_dir": str(run_dir),
        "seed": 3,
        "model": MODEL,
        "growth": {"to": BIGGER, "ramp": 15},
        "data": {"path": str(store.path), "sequence_length": 16},
        "training": {"steps": STEPS, "global_batch": 8, "micro_batch": 2, "dtype": "fp64"},
        "optimizer": {"learning_rate": 1e-3, "matrix_learning_rate": 1e-3, "eps": 1e-5},
        "schedule": {"warmup_steps": 100, "total_steps": 200},
        "checkpoint": {"every": 5, "keep": 10},
        "evaluation": {"every": 10, "tokens": 64},
    }


def state_of(run_dir: Path) -> TrainingState:
    return load_checkpoint(find_checkpoint(run_dir))[1]


def counts(state: TrainingState) -> tuple[Any, ...]:
    """What is compared exactly; the next batch follows from the lineage and the sequences."""
    return (state.step, state.adam_steps, state.tokens, state.sequences, state.lineage)


def differences(found: TrainingState, right: TrainingState) -> float:
    """The largest relative difference of weights and moments."""
    pairs = (
        (found.weights, right.weights),
        (found.exp_avg, right.exp_avg),
        (found.exp_avg_sq, right.exp_avg_sq),
    )
    return max(
        ((some[name] - same[name]).norm() / same[name].norm()).item()
        for some, same in pairs
        for name in same
    )


@pytest.fixture(scope="module")
def alone(store: TokenStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process, undisturbed."""
    run_dir = tmp_path_factory.mktemp("alone") / "run"
    train_up_to(run_of(store, run_dir), STEPS, {})
    return run_dir


def test_on_the_same_layout_it_is_the_same_run(
    eight: World, store: TokenStore, tmp_path: Path, alone: Path
) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    eight.run(train_up_to, run_of(store, whole), 10, ALL_AXES)
    for steps in (4, 10):
        eight.run(train_up_to, run_of(store, stopped), steps, ALL_AXES)
    assert trajectory(stopped) == trajectory(whole)
    one, other = state_of(stopped), state_of(whole)
    assert counts(one) == counts(other)
    for name, weight in other.weights.items():
        assert torch.equal(one.weights[name], weight)
        assert torch.equal(one.exp_avg[name], other.exp_avg[name])
        assert torch.equal(one.exp_avg_sq[name], other.exp_avg_sq[name])


def test_from_layout_to_layout_it_is_the_run_of_one_process(
    four: World, eight: World, store: TokenStore, tmp_path: Path, alone: Path
) -> None:
    run_dir = tmp_path / "run"
    data = run_of(store, run_dir)
    eight.run(train_up_to, data, 8, ALL_AXES)
    saved = state_of(run_dir)
    four.run(train_up_to, data, 8, {"pp": 4})  # nothing to do: it reads, and saves nothing
    again = state_of(run_dir)
    assert differences(again, saved) == 0.0 and counts(again) == counts(saved)
    four.run(train_up_to, data, 14, {"pp": 4})
    train_up_to(data, STEPS, {})
    found, right = trajectory(run_dir), trajectory(alone)
    assert [line["step"] for line in found] == list(range(1, STEPS + 1))
    for line, expected in zip(found, right, strict=True):
        assert line["tokens"] == expected["tokens"] and line["ramp"] == expected["ramp"]
        assert line["lr"] == expected["lr"]
        assert line["loss"] == pytest.approx(expected["loss"], rel=1e-9)
        assert line["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-9)
    assert differences(state_of(run_dir), state_of(alone)) <= 1e-9
    assert counts(state_of(run_dir)) == counts(state_of(alone))


def test_conversations_are_gone_on_with_inside_an_epoch(
    four: World, tokenizer_dir: Path, tmp_path: Path
) -> None:
    """To the bit on the same layout; then on others as one process does it, to rounding."""
    chats = chat_store(tmp_path, tokenizer_dir, 60)

    def run_in(name: str) -> dict[str, Any]:
        data = run_of(chats, tmp_path / name)
        return {
            **data,
            "data": {"path": str(chats.path), "sequence_length": 64},
            "schedule": {"kind": "linear", "warmup_steps": 2, "total_steps": 7},
            "checkpoint": {"every": 1, "keep": 9},
        }

    two = {"tp": 2, "dp_replicate": 2}
    for steps in (1, 4):  # an epoch is of 27 rows, and a step of 8
        four.run(train_up_to, run_in("stopped"), steps, two)
    four.run(train_up_to, run_in("whole"), 4, two)
    assert trajectory(tmp_path / "stopped") == trajectory(tmp_path / "whole")
    assert differences(state_of(tmp_path / "stopped"), state_of(tmp_path / "whole")) == 0.0
    four.run(train_up_to, run_in("stopped"), 6, ALL_AXES)
    train_up_to(run_in("stopped"), 7, {})
    train_up_to(run_in("alone"), 7, {})
    found, right = trajectory(tmp_path / "stopped"), trajectory(tmp_path / "alone")
    assert [line["loss"] for line in found] == pytest.approx(
        [line["loss"] for line in right], rel=1e-9
    )
    assert [line["lr"] for line in found] == [line["lr"] for line in right]
    assert differences(state_of(tmp_path / "stopped"), state_of(tmp_path / "alone")) <= 1e-9
    assert counts(state_of(tmp_path / "stopped")) == counts(state_of(tmp_path / "alone"))


def test_a_checkpoint_of_one_process_is_grown_on_many_ranks(
    four: World, store: TokenStore, tmp_path: Path
) -> None:
    parent = {**run_of(store, tmp_path / "parent"), "growth": None}
    train_up_to(parent, 4, {})
    child = run_of(store, tmp_path / "child")
    del child["model"]
    start = {"start_from": str(tmp_path / "parent"), "seed": 5}
    train_up_to({**child, **start}, 3, {})
    many = {**child, **start, "run_dir": str(tmp_path / "many")}
    four.run(train_up_to, many, 3, {"tp": 2, "pp": 2})
    found, right = state_of(tmp_path / "many"), state_of(tmp_path / "child")
    assert counts(found) == counts(right)
    assert found.lineage[-1].layers == right.lineage[-1].layers
    assert differences(found, right) <= 1e-12
    many_eval, one_eval = (
        read_jsonl(tmp_path / name / "evaluation.jsonl") for name in ("many", "child")
    )
    assert [line["step"] for line in many_eval] == [line["step"] for line in one_eval]
    for line, expected in zip(many_eval, one_eval, strict=True):
        assert (line["tokens"], line["bytes"]) == (expected["tokens"], expected["bytes"])
        assert line["loss"] == pytest.approx(expected["loss"], rel=1e-12)


@pytest.mark.parametrize("parallel", [{"pp": 2}, {"tp": 2, "dp_replicate": 2}], ids=["pp", "tp"])
def test_what_is_skipped_and_rolled_back_is_so_on_all_ranks_alike(
    four: World, store: TokenStore, tmp_path: Path, parallel: dict[str, Any]
) -> None:
    def run_in(name: str) -> dict[str, Any]:
        return run_fields(
            store.path,
            tmp_path / name,
            training={"steps": 18, "dtype": "fp64"},
            optimizer={"learning_rate": 2e-2, "matrix_learning_rate": 2e-3, "eps": 1e-5},
            checkpoint={"every": 4, "keep": 2, "asynchronous": True},
            spikes={"window": 6, "threshold": 4.0, "answer": "roll_back"},
        )

    train_through_faults(run_in("one"), {}, 0)
    four.run(train_through_faults, run_in("many"), parallel, 1)
    found, right = state_of(tmp_path / "many"), state_of(tmp_path / "one")
    assert [event.operator for event in right.lineage] == ["init", "skip", *["roll_back"] * 2]
    assert counts(found)[:-1] == counts(right)[:-1]
    same = {"reason": None}  # it holds a loss, which is the same to rounding only
    assert [event.model_copy(update=same) for event in found.lineage] == [
        event.model_copy(update=same) for event in right.lineage
    ]
    # Text of one word has no gradient in queries and keys: their moments are rounding alone.
    for name, weight in right.weights.items():
        assert (found.weights[name] - weight).norm() <= 1e-9 * weight.norm(), name
    assert len(trajectory(tmp_path / "many")) == 18


def test_bf16_on_many_ranks_is_near_bf16_on_one(
    four: World, store: TokenStore, tmp_path: Path
) -> None:
    losses = []
    for name, parallel in {
        "one": None,
        "plain": {"tp": 2},
        "narrow": {"pp": 2, "gather_dtype": "bf16", "reduce_dtype": "bf16"},
    }.items():
        data = run_of(store, tmp_path / name)
        data["training"] = {**data["training"], "dtype": "bf16"}
        if parallel is None:
            train_up_to(data, 4, {})
        else:
            four.run(train_up_to, data, 4, parallel)
        losses.append([line["loss"] for line in trajectory(tmp_path / name)])
    for other in losses[1:]:
        assert other == pytest.approx(losses[0], rel=2e-3)
        assert other != losses[0]


def test_the_first_rank_settles_the_precision_for_all(
    four: World, store: TokenStore, tmp_path: Path
) -> None:
    data = run_of(store, tmp_path / "run")
    data["training"] = {**data["training"], "dtype": "auto"}
    assert four.run(settled_where_ranks_differ, data) == ["fp32"] * 4
