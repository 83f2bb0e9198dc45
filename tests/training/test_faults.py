"""Steps that go wrong: skipped, told, rolled back, and the same after any resume."""

import gc
import math
import os
import signal
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import teleflm.training.hooks.checkpoints as hook_module
from teleflm.checkpoint.card import CardFacts, model_card
from teleflm.checkpoint.load import checkpoints, find_checkpoint, load_checkpoint
from teleflm.checkpoint.open import open_state
from teleflm.checkpoint.save import step_folder
from teleflm.config.run import SpikesConfig
from teleflm.data.loader import Loader
from teleflm.data.store import TokenStore
from teleflm.errors import MachineError, StoppedError
from teleflm.files import read_jsonl
from teleflm.growth.event import Lineage
from teleflm.training.faults import Verdict, Watch
from teleflm.training.hooks.base import Hook
from teleflm.training.learner import Learner
from teleflm.training.loop import default_hooks, train
from teleflm.training.run import Run, StepRecord
from teleflm.training.start import resolve_config
from tests.conftest import Command
from tests.tiny import (
    At,
    assert_same_run,
    cut_back,
    other_text,
    poison,
    run_config,
    run_fields,
    trajectory,
)

EVERY_STEP: dict[str, Any] = {"checkpoint": {"every": 1, "keep": 99}}
NOTHING = Verdict()


# --- the verdict


def watching(losses: list[float], **spikes: Any) -> Watch:
    watch = Watch(SpikesConfig(**{"window": 8, "threshold": 4.0, "answer": "skip", **spikes}))
    for loss in losses:
        watch.add({"loss": loss, "fault": None, "skipped": False})
    return watch


def test_a_loss_far_above_the_window_is_a_spike() -> None:
    quiet = watching([3.0, 3.01, 2.99, 3.02, 2.98, 3.0, 3.01, 2.99])
    assert quiet.judge(3.29, 1.0) == NOTHING, "many deviations, but less than a tenth"
    assert quiet.judge(3.31, 1.0).fault == "spike"
    noisy = watching([3.0, 4.0, 2.0, 3.5, 2.5, 3.0, 4.0, 2.0])
    assert noisy.judge(4.5, 1.0) == NOTHING, "half as much again, but within the noise"
    # Median 3, deviations 0, 1, 1, .5, .5, 0, 1, 1 of median 0.75.
    assert noisy.judge(3.0 + 4 * 1.4826 * 0.75 + 0.01, 1.0).answer == "skip"
    assert noisy.judge(3.0 + 4 * 1.4826 * 0.75 - 0.01, 1.0) == NOTHING


def test_too_little_is_known_at_first() -> None:
    assert watching([3.0] * 3).judge(99.0, 1.0) == NOTHING
    assert watching([3.0] * 4).judge(99.0, 1.0).fault == "spike"


def test_a_spike_does_not_hide_the_next_and_a_new_level_is_learnt() -> None:
    watch, verdicts = watching([3.0] * 8), []
    for _ in range(16):
        verdict = watch.judge(9.0, 1.0)
        verdicts.append(verdict.fault)
        watch.add({"loss": 9.0, "fault": verdict.fault, "skipped": False})
    assert verdicts == ["spike"] * 5 + [None] * 11
    assert watch.judge(9.0, 1.0) == NOTHING and watch.judge(19.0, 1.0).fault == "spike"


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_skipped_whatever_the_answer_to_spikes(bad: float) -> None:
    for watch in (watching([]), watching([3.0] * 8, answer="log")):
        assert watch.judge(bad, 1.0).answer == "skip"
        assert watch.judge(3.0, bad).answer == "skip"
        assert not watch.judge(3.0, bad).takes_update


# --- injected faults


def lineage(run: Path) -> Lineage:
    return load_checkpoint(find_checkpoint(run))[1].lineage


def events(run: Path) -> list[tuple[str, int, int]]:
    return [(event.operator, event.step, event.batches) for event in lineage(run)]


def assert_same_end(one: Path, other: Path) -> None:
    """The same bits, the same records, the same history."""
    assert_same_run(one, other)
    ends = [load_checkpoint(find_checkpoint(run))[1] for run in (one, other)]
    for field in ("lineage", "adam_steps", "tokens", "sequences", "flops"):
        assert getattr(ends[0], field) == getattr(ends[1], field), field


# --- steps that are not finite


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_step_that_is_not_finite_leaves_the_state_as_it_was(
    store: TokenStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    what: str,
) -> None:
    poison(monkeypatch, {2}, what)
    run = train(run_config(store.path, tmp_path / "run", **EVERY_STEP))
    before, after = (load_checkpoint(step_folder(run, step))[1] for step in (2, 3))
    for field in ("weights", "exp_avg", "exp_avg_sq"):
        for name, tensor in getattr(before, field).items():
            assert torch.equal(getattr(after, field)[name], tensor), (field, name)
    assert (before.adam_steps, after.adam_steps) == (2, 2)
    assert (after.tokens, after.sequences) == (3 * 64, 3 * 4)
    assert load_checkpoint(find_checkpoint(run))[1].adam_steps == 5

    lines = read_jsonl(run / "metrics.jsonl")
    assert [line["skipped"] for line in lines] == [False, False, True, False, False, False]
    assert [line["fault"] for line in lines] == [None, None, "non_finite", None, None, None]
    assert (lines[2]["loss"] is None) == (what == "loss")
    assert (lines[2]["grad_norm"] is None) == (what == "gradient")
    assert "NaN" not in (run / "metrics.jsonl").read_text()
    assert "Infinity" not in (run / "metrics.jsonl").read_text()
    assert [line["tokens"] for line in lines] == [64 * step for step in range(1, 7)]
    assert events(run) == [("init", 0, 0), ("skip", 3, 1)]
    word = "loss nan" if what == "loss" else "gradient norm inf"
    assert lineage(run)[-1].reason == word
    assert f"{run}, step 3: {word}; its update is skipped\n" in capsys.readouterr().err


def test_what_follows_a_skip_is_as_if_its_batch_had_not_been(
    store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A gradient that leaked, or a count that moved, would show in the next step at the latest.
    schedule = {"kind": "wsd", "warmup_steps": 0, "decay_fraction": 0.0}
    whole = train(run_config(store.path, tmp_path / "whole", schedule=schedule, **EVERY_STEP))
    real = Loader.batch
    with monkeypatch.context() as patch:
        # The same batches, but for one in between that is poisoned.
        patch.setattr(Loader, "batch", lambda loader, step, *_: real(loader, step - (step > 2)))
        poison(patch, {2})
        steps = {"steps": 7}
        run = train(
            run_config(
                store.path, tmp_path / "run", schedule=schedule, training=steps, **EVERY_STEP
            )
        )
    (_, state), (_, expected) = (load_checkpoint(find_checkpoint(path)) for path in (run, whole))
    assert state.adam_steps == expected.adam_steps == 6
    for field in ("weights", "exp_avg", "exp_avg_sq"):
        for name, tensor in getattr(expected, field).items():
            assert torch.equal(getattr(state, field)[name], tensor), (field, name)


GROWTH = {"to": {"hidden_size": 40, "num_hidden_layers": 3}, "ramp": 3, "place": "even"}


@pytest.mark.parametrize("growth", [None, GROWTH, {**GROWTH, "ramp": 1}], ids=["", "ramp", "one"])
def test_resumed_anywhere_around_a_skip_it_is_the_same_run(
    store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, growth: Any
) -> None:
    # The growth's masks open at step 1 of one, which is poisoned, and so is the end of the other.
    poison(monkeypatch, {1, 3})
    sections = {**EVERY_STEP, **({"growth": growth} if growth else {})}
    whole = train(run_config(store.path, tmp_path / "whole", **sections))
    assert [line["ramp"] for line in trajectory(whole)] == [
        min(step / growth["ramp"], 1.0) if growth else 1.0 for step in range(6)
    ]
    assert events(whole)[-2:] == [("skip", 2, 1), ("skip", 4, 1)]
    for step in (1, 2, 3, 4):
        resumed = cut_back(whole, tmp_path / f"from-{step}", step)
        train(run_config(store.path, resumed, **sections))
        assert_same_end(resumed, whole)


def test_too_many_in_a_row_end_the_run(
    store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, {0, 1, 3, 4, 5})
    sections: dict[str, Any] = {**EVERY_STEP, "faults": {"max_in_a_row": 2}}
    run = tmp_path / "run"
    # The count goes on where a process stopped in between.
    hook = At(4, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(StoppedError):
        train(run_config(store.path, run, **sections), [*default_hooks(), hook])
    for _ in range(2):
        with pytest.raises(
            MachineError,
            match=r"run, step 6: .*inf, after 2 skipped steps in a row; .*faults\.max_in_a_row",
        ) as error:
            train(run_config(store.path, run, **sections))
        assert error.value.exit_code == 1
        assert find_checkpoint(run).name == "step-00000005"
    train(run_config(store.path, run, **{**sections, "faults": {"max_in_a_row": 3}}))
    assert [line["skipped"] for line in trajectory(run)] == [1, 1, 0, 1, 1, 1]


# --- loss spikes

# The tiny model learns its one word quickly; batches 11 and 13 are noise.
STEPS = 18
SPIKY: dict[str, Any] = {
    "training": {"steps": STEPS},
    "optimizer": {"learning_rate": 2e-2, "matrix_learning_rate": 2e-3},
    "checkpoint": {"every": 4, "keep": 2},
    "evaluation": {"every": 6},
    "spikes": {"window": 6, "threshold": 4.0},
}
NOISE = {11, 13}


def spiky(store: TokenStore, run: Path, answer: str, **sections: Any) -> Any:
    spikes = {**SPIKY["spikes"], "answer": answer}
    return run_config(store.path, run, **{**SPIKY, **sections, "spikes": spikes})


def test_a_spike_is_logged(
    store: TokenStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other_text(monkeypatch, NOISE)
    # With the weights of the other tests' seed the learnt noise is met again six steps later.
    run = train(spiky(store, tmp_path / "run", "log", seed=4))
    lines = trajectory(run)
    assert [line["step"] for line in lines if line["fault"] == "spike"] == [12, 14]
    assert not any(line["skipped"] for line in lines)
    assert events(run) == [("init", 0, 0)]
    assert load_checkpoint(find_checkpoint(run))[1].adam_steps == STEPS
    assert "run, step 12: loss spike, " in (err := capsys.readouterr().err)
    assert err.count("; going on\n") == 2


def test_a_spike_is_skipped(
    store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other_text(monkeypatch, NOISE)
    run = train(spiky(store, tmp_path / "run", "skip"))
    assert [line["step"] for line in trajectory(run) if line["skipped"]] == [12, 14]
    assert events(run) == [("init", 0, 0), ("skip", 12, 1), ("skip", 14, 1)]
    assert load_checkpoint(find_checkpoint(run))[1].adam_steps == STEPS - 2
    spike = trajectory(run)[11]
    assert spike["loss"] > 1.1 * trajectory(run)[10]["loss"], "its loss is on record"


@pytest.mark.parametrize("answer", ["log", "skip"])
def test_resumed_anywhere_around_a_spike_it_is_the_same_run(
    store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    other_text(monkeypatch, NOISE)
    whole = train(spiky(store, tmp_path / "whole", answer, **EVERY_STEP))
    for step in (10, 11, 12, 14):
        resumed = cut_back(whole, tmp_path / f"from-{step}", step)
        train(spiky(store, resumed, answer, **EVERY_STEP))
        assert_same_end(resumed, whole)


# --- rolling back

# It goes back from 11 to 8, past 8 to 11, meets 13, and goes back again, past 12 and 13.
BACK = [("init", 0, 0), ("roll_back", 8, 4), ("roll_back", 8, 2)]
SLOW_GROWTH = {**GROWTH, "ramp": 10}


def test_a_roll_back_past_a_change_of_precision_skips_the_same_batches(
    store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other_text(monkeypatch, NOISE)
    run = tmp_path / "run"
    wide, narrow = (
        spiky(store, run, "roll_back", training={**SPIKY["training"], "dtype": dtype})
        for dtype in ("fp32", "bf16")
    )
    stop = At(10, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(StoppedError):
        train(narrow, [*default_hooks(), stop])
    # The checkpoint that a spike goes back to was computed in bf16.
    train(wide)
    lineage = load_checkpoint(find_checkpoint(run))[0].lineage
    at = [(event.operator, event.sequences // 4) for event in lineage if event.step == 8]
    assert at == [("roll_back", 12), ("precision", 12), ("roll_back", 14)]


@pytest.mark.parametrize("growth", [None, SLOW_GROWTH], ids=["", "ramp"])
def test_a_roll_back_is_the_run_without_the_batches(
    store: TokenStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    growth: Any,
) -> None:
    more = {"growth": growth} if growth else {}
    other_text(monkeypatch, NOISE)
    run = train(spiky(store, tmp_path / "run", "roll_back", **more))
    assert events(run)[-2:] == BACK[1:]
    assert "step 12: loss spike" in (err := capsys.readouterr().err)
    assert err.count("; rolling back\n") == 2
    assert err.count(f"{run}: going on from step 8\n") == 2
    lines = trajectory(run)
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    # What was read and taken back has been spent all the same.
    read = [*range(1, 9), *range(8 + 6 + 1, STEPS + 6 + 1)]
    assert [line["tokens"] for line in lines] == [64 * count for count in read]
    assert [line["flops"] for line in lines] == [lines[0]["flops"] * count for count in read]

    real = Loader.batch
    monkeypatch.setattr(
        Loader, "batch", lambda loader, step, *_: real(loader, step + 6 * (step >= 8))
    )
    expected = train(spiky(store, tmp_path / "expected", "log", **more))
    (_, state), (_, plain) = (load_checkpoint(find_checkpoint(path)) for path in (run, expected))
    assert (state.step, state.adam_steps) == (plain.step, plain.adam_steps) == (STEPS, STEPS)
    assert (state.tokens, state.sequences) == (64 * (STEPS + 6), 4 * (STEPS + 6))
    for field in ("weights", "exp_avg", "exp_avg_sq"):
        for name, tensor in getattr(plain, field).items():
            assert torch.equal(getattr(state, field)[name], tensor), (field, name)
    assert [line["loss"] for line in lines] == [line["loss"] for line in trajectory(expected)]


def test_a_skip_that_is_taken_back_is_no_event(
    store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other_text(monkeypatch, {11})
    poison(monkeypatch, {6, 9})
    run = train(spiky(store, tmp_path / "run", "roll_back"))
    # Step 10 is poisoned before the roll back and after it.
    assert events(run)[1:] == [("skip", 7, 1), ("roll_back", 8, 4), ("skip", 10, 1)]
    assert load_checkpoint(find_checkpoint(run))[1].adam_steps == STEPS - 2


def test_a_roll_back_holds_one_network_at_a_time(
    store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other_text(monkeypatch, NOISE)
    alive: weakref.WeakSet[Learner] = weakref.WeakSet()
    others: list[int] = []
    real = Learner.__init__

    def counted(learner: Learner, *args: Any, **more: Any) -> None:
        others.append(len(alive))
        alive.add(learner)
        real(learner, *args, **more)

    monkeypatch.setattr(Learner, "__init__", counted)
    gc.disable()
    try:
        train(spiky(store, tmp_path / "run", "roll_back"))
    finally:
        gc.enable()
    assert others == [0, 0, 0]


class After(Hook):
    """Calls `action` after the `count`th step that any hook has seen, or before any start."""

    def __init__(self, action: Callable[[], object], *, count: int = 0, start: int = 0) -> None:
        self._action, self._count, self._start = action, count, start

    def on_start(self, run: Run) -> None:
        self._start -= 1
        if self._start == 0:
            self._action()

    def on_step(self, run: Run, record: StepRecord) -> None:
        self._count -= 1
        if self._count == 0:
            self._action()


class Crash(Exception):
    pass


def crash() -> None:
    raise Crash


@pytest.fixture(scope="module")
def rolled_back(store: TokenStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        other_text(patch, NOISE)
        run = tmp_path_factory.mktemp("runs") / "rolled-back"
        return train(spiky(store, run, "roll_back"))


# Of the steps that hooks see the eleventh is the last before the spike, the twelfth the first after
# the roll back, and the thirteenth the first after the second one.
@pytest.mark.parametrize("count", [9, 11, 12, 13, 16])
@pytest.mark.parametrize("is_killed", [True, False], ids=["killed", "stopped"])
def test_a_roll_back_is_the_same_wherever_the_run_was_stopped(
    store: TokenStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rolled_back: Path,
    count: int,
    is_killed: bool,
) -> None:
    other_text(monkeypatch, NOISE)
    # With one kept, what a stop saves must not push out what the roll back needs.
    sections = {"checkpoint": {"every": 4, "keep": 1}}
    config = spiky(store, tmp_path / "run", "roll_back", **sections)
    if is_killed:
        with pytest.raises(Crash):
            train(config, [*default_hooks(), After(crash, count=count)])
    else:
        stop = After(lambda: os.kill(os.getpid(), signal.SIGTERM), count=count)
        with pytest.raises(StoppedError):
            train(config, [*default_hooks(), stop])
    train(config)
    assert_same_end(tmp_path / "run", rolled_back)
    assert [path.name for path in checkpoints(tmp_path / "run")] == [
        "step-00000016",
        "step-00000018",
    ]


def test_killed_in_the_middle_of_a_roll_back(
    store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rolled_back: Path
) -> None:
    other_text(monkeypatch, NOISE)
    config = spiky(store, tmp_path / "run", "roll_back")
    with pytest.raises(Crash):
        train(config, [After(crash, start=2), *default_hooks()])
    assert len(read_jsonl(tmp_path / "run" / "metrics.jsonl")) == 11, "not cut back yet"
    train(config)
    assert_same_end(tmp_path / "run", rolled_back)


def test_a_save_under_way_is_waited_for(
    store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rolled_back: Path
) -> None:
    # Else a run goes back further, and then finds the late checkpoint under the wrong lineage.
    other_text(monkeypatch, NOISE)
    real = hook_module.save_checkpoint

    def slow(folder: Path, *args: Any, **more: Any) -> None:
        time.sleep(0.5 if folder.name == "step-00000008" else 0)
        real(folder, *args, **more)

    monkeypatch.setattr(hook_module, "save_checkpoint", slow)
    checkpoint = {"every": 4, "keep": 2, "asynchronous": True}
    run = train(spiky(store, tmp_path / "run", "roll_back", checkpoint=checkpoint))
    assert events(run) == BACK
    assert_same_end(run, rolled_back)


def test_what_a_stop_saved_of_steps_that_are_taken_back_goes(
    store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rolled_back: Path
) -> None:
    # Else a stop at step 9 after the roll back from 11 would go on from step 10 before it.
    other_text(monkeypatch, NOISE)
    config = spiky(store, tmp_path / "run", "roll_back")
    for count in (10, 2):
        stop = After(lambda: os.kill(os.getpid(), signal.SIGTERM), count=count)
        with pytest.raises(StoppedError):
            train(config, [*default_hooks(), stop])
    assert find_checkpoint(tmp_path / "run").name == "step-00000009"
    assert events(tmp_path / "run") == BACK[:2]
    train(config)
    assert_same_end(tmp_path / "run", rolled_back)


def test_a_damaged_checkpoint_is_no_target(
    store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other_text(monkeypatch, {11})
    run = tmp_path / "run"
    bad = step_folder(run, 8) / "manifest.json"
    train(
        spiky(store, run, "roll_back"),
        [*default_hooks(), At(10, lambda: os.truncate(bad, 9) if bad.stat().st_size > 9 else None)],
    )
    assert events(run) == [("init", 0, 0), ("roll_back", 4, 8)]
    assert [line["step"] for line in trajectory(run)] == list(range(1, STEPS + 1))


def test_roll_backs_without_end_end_the_run(
    store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other_text(monkeypatch, set(range(11, 99)))
    run = tmp_path / "run"
    config = spiky(store, run, "roll_back", faults={"max_in_a_row": 3})
    for _ in range(2):
        with pytest.raises(MachineError, match=r"at step 9, after 3 roll backs to step 8 for the"):
            train(config)
        assert find_checkpoint(run).name == "step-00000008"


# --- what reads a lineage


def test_a_child_of_a_run_with_faults(
    store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other_text(monkeypatch, NOISE)
    poison(monkeypatch, {STEPS - 1})
    parent = train(spiky(store, tmp_path / "parent", "roll_back"))
    assert events(parent) == [*BACK, ("skip", STEPS, 1)]
    fields = run_fields(store.path, tmp_path / "child", start_from=str(parent))
    del fields["model"]
    read: list[int] = []

    class Watching(Hook):
        def on_step(self, run: Run, record: StepRecord) -> None:
            read.append(run.loader._first_row(run.step - 1))

    child = train(resolve_config(fields, "child"), [*default_hooks(), Watching()])
    assert read == [4 * number for number in range(24, 30)]
    assert events(child)[4:] == [("continue", STEPS, 0)]
    assert [line["step"] for line in trajectory(child)] == list(range(STEPS + 1, STEPS + 7))
    assert trajectory(child)[-1]["tokens"] == 64 * 30
    assert trajectory(child)[0]["lr"] == pytest.approx(1e-3), "its own warm-up"


def test_they_are_shown(rolled_back: Path, teleflm: Command) -> None:
    shown = teleflm("inspect", rolled_back).out
    assert "step 8: roll_back, 4 batches: loss spike, " in " ".join(shown.split())
    card = model_card(open_state(rolled_back), "transformers", "", CardFacts())
    assert (
        "2 times the training went back to a checkpoint for a loss spike, past 6 batches." in card
    )
    assert card.count("| new weights |") == 1 and "| roll" not in card
    assert f"{64 * (STEPS + 6):,} tokens" in card
