"""What stands beside the step: files that follow the run, whatever stopped it."""

import io
import json
import os
import re
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import teleflm.training.hooks.checkpoints as hook_module
import teleflm.training.hooks.progress as progress
from teleflm.checkpoint.load import checkpoints, find_checkpoint, load_checkpoint
from teleflm.checkpoint.manifest import problems
from teleflm.checkpoint.save import step_folder
from teleflm.data.indexed import IndexedWriter
from teleflm.data.store import TokenStore
from teleflm.errors import ConfigError, DataError, StoppedError
from teleflm.files import read_jsonl
from teleflm.training.hooks.base import Hook
from teleflm.training.hooks.checkpoints import SaveCheckpoints
from teleflm.training.hooks.evaluation import Evaluate
from teleflm.training.hooks.jsonl import JsonLines
from teleflm.training.hooks.metrics import Metrics, TensorBoard
from teleflm.training.hooks.progress import ShowProgress
from teleflm.training.loop import train
from teleflm.training.run import Run
from tests.tiny import At, assert_same_run, run_config


class Crash(Exception):
    pass


def crash() -> None:
    raise Crash


@pytest.fixture(scope="module")
def undisturbed(store: TokenStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(run_config(store.path, tmp_path_factory.mktemp("runs") / "undisturbed"))


def crashed(store: TokenStore, run: Path, step: int, hooks: list[Hook], **sections: Any) -> None:
    """A run that dies after `step`, when `hooks` have seen it."""
    with pytest.raises(Crash):
        train(run_config(store.path, run, **sections), [*hooks, At(step, crash)])


# --- JSON lines


@pytest.mark.parametrize(
    "torn", [b"", b'{"step": 3', b'{"step": 3, "text": "\xe7\xac', b'{"step": 3}', b"\x00\x00"]
)
def test_a_torn_last_line_is_cut_off(tmp_path: Path, torn: bytes) -> None:
    file = tmp_path / "m.jsonl"
    whole = b'{"step": 1}\n{"step": 2, "text": "\xe7\xac\xac"}\n'
    file.write_bytes(whole + torn)
    assert [record["step"] for record in read_jsonl(file)] == [1, 2]
    lines = JsonLines(file, 2)
    lines.append({"step": 3, "text": "一"})
    lines.close()
    assert file.read_bytes() == whole + '{"step": 3, "text": "一"}\n'.encode()
    assert os.listdir(tmp_path) == ["m.jsonl"]


@pytest.mark.parametrize("text", ["a\u2028b", "a\u0085b\u2029", "a\r\nb\x0b\x0c\x1c", "\ufeff"])
def test_any_text_is_one_line(tmp_path: Path, text: str) -> None:
    # str.splitlines() would cut at these, and all that follows would be lost.
    file = tmp_path / "m.jsonl"
    for step in (1, 2):
        lines = JsonLines(file, step)
        lines.append({"step": step, "text": text})
        lines.close()
    assert read_jsonl(file) == [{"step": step, "text": text} for step in (1, 2)]


def test_what_comes_after_the_step_is_cut_off(tmp_path: Path) -> None:
    file = tmp_path / "m.jsonl"
    file.write_text("".join(f'{{"step": {step}}}\n' for step in (1, 2, 2, 3, 4)))
    lines = JsonLines(file, 2)
    lines.close()
    assert lines.steps == {1, 2}
    assert [record["step"] for record in read_jsonl(file)] == [1, 2, 2]


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    file = tmp_path / "m.jsonl"
    file.write_bytes(b'{"step": 1}\n{"st\xff\n{"step": 3}\n')
    with pytest.raises(DataError, match=rf"{file}, line 2: damaged"):
        read_jsonl(file)
    assert read_jsonl(tmp_path / "none.jsonl") == []


# --- the run's files


def test_a_line_a_step(undisturbed: Path) -> None:
    lines = read_jsonl(undisturbed / "metrics.jsonl")
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert [line["tokens"] for line in lines] == [64 * step for step in range(1, 7)]
    first = lines[0]
    keys = "step tokens flops loss grad_norm lr ramp tokens_per_second mfu fault skipped"
    assert set(first) == set(keys.split())
    assert first["flops"] * 6 == lines[-1]["flops"]
    assert first["lr"] == pytest.approx(1e-3), "half of the peak in a warm-up of two"
    assert 0 < first["mfu"] < 1


def test_a_crash_between_checkpoints_leaves_no_trace(
    undisturbed: Path, store: TokenStore, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    # It dies at step 5, after its metrics and before the next checkpoint, which is step 4's.
    crashed(store, run, 5, [Metrics(), TensorBoard(), Evaluate(), SaveCheckpoints()])
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 6, "loss')
    assert len((run / "metrics.jsonl").read_bytes().splitlines()) == 6
    # TensorBoard orders its files by the second in their names.
    time.sleep(1.0)
    train(run_config(store.path, run))
    assert_same_run(run, undisturbed)

    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    scalars = events.Scalars("train/loss")
    assert [event.step for event in scalars] == [1, 2, 3, 4, 5, 6]
    losses = [line["loss"] for line in read_jsonl(run / "metrics.jsonl")]
    assert [event.value for event in scalars] == pytest.approx(losses)


def test_an_evaluation_is_made_once_and_only_when_due(
    undisturbed: Path, store: TokenStore, tmp_path: Path
) -> None:
    assert [line["step"] for line in read_jsonl(undisturbed / "evaluation.jsonl")] == [0, 3, 6]
    assert [line["step"] for line in read_jsonl(undisturbed / "samples.jsonl")] == [0, 3, 6]
    run = tmp_path / "run"
    hooks: list[Hook] = [Metrics(), Evaluate(), SaveCheckpoints()]
    # Resumed at step 0, where it is done, at 2, where none is due, and after the last.
    crashed(store, run, 1, hooks)
    crashed(store, run, 2, hooks)
    for _ in range(2):
        train(run_config(store.path, run))
    assert_same_run(run, undisturbed)


def test_evaluations_have_figures_by_domain(undisturbed: Path) -> None:
    first, *_, last = read_jsonl(undisturbed / "evaluation.jsonl")
    assert set(first["bpb"]) == {"english", "chinese", "code"}
    assert first["bpb_mean"] == pytest.approx(sum(first["bpb"].values()) / 3)
    assert last["loss"] < first["loss"]
    assert first["bytes"] > first["tokens"] > 0


def without_tokenizer(folder: Path, held_out: list[int]) -> dict[str, Any]:
    for name, tokens in (("x", list(range(30)) * 9), ("x.held-out", held_out)):
        with IndexedWriter(folder / name, "uint16") as writer:
            writer.add(tokens)
    return {"path": {"x": [str(folder / "x"), 1.0]}}


@pytest.mark.parametrize(("held_out", "count"), [([1, 2, 3], 2), ([1], 0)])
def test_held_out_tokens_without_a_tokenizer(
    store: TokenStore, tmp_path: Path, held_out: list[int], count: int
) -> None:
    data = without_tokenizer(tmp_path, held_out)
    run = tmp_path / "run"
    train(run_config(store.path, run, data=data, model={"vocab_size": 40}, training={"steps": 1}))
    found = read_jsonl(run / "evaluation.jsonl")
    assert [line["tokens"] for line in found] == ([count] * 2 if count else [])
    assert all(line["bpb"] == {} and line["bpb_mean"] is None for line in found)


def test_a_prompt_longer_than_the_context_is_refused_before_a_step(
    store: TokenStore, tmp_path: Path
) -> None:
    evaluation = {"prompts": ["short", "long " * 200]}
    with pytest.raises(
        ConfigError, match=r"evaluation\.prompts\[1\]: .* tokens and .* context 64; sh"
    ):
        train(run_config(store.path, tmp_path / "run", evaluation=evaluation))
    assert not (tmp_path / "run" / "evaluation.jsonl").exists()


def test_a_held_out_token_outside_the_vocabulary(store: TokenStore, tmp_path: Path) -> None:
    data = without_tokenizer(tmp_path, [1, 40, 2])
    config = run_config(store.path, tmp_path / "run", data=data, model={"vocab_size": 40})
    with pytest.raises(DataError, match=r"held-out\.bin: token 40 is outside .* of 40"):
        train(config)


# --- checkpoints


def names(run: Path) -> list[int]:
    return [int(path.name.removeprefix("step-")) for path in checkpoints(run)]


@pytest.mark.parametrize(
    ("every", "keep", "expected"),
    [(2, 3, [2, 4, 6]), (1, 1, [6]), (4, 9, [0, 4, 6]), (9, 1, [6])],
)
def test_the_newest_stay(
    store: TokenStore, tmp_path: Path, every: int, keep: int, expected: list[int]
) -> None:
    train(run_config(store.path, tmp_path / "run", checkpoint={"every": every, "keep": keep}))
    assert names(tmp_path / "run") == expected


@pytest.mark.parametrize(
    ("every", "keep", "keep_every", "expected"),
    [(1, 1, 2, [0, 2, 4, 6]), (1, 2, 4, [0, 4, 5, 6]), (2, 1, 3, [0, 6]), (1, 1, 100, [0, 6])],
)
def test_some_stay_for_ever(
    store: TokenStore, tmp_path: Path, every: int, keep: int, keep_every: int, expected: list[int]
) -> None:
    section = {"every": every, "keep": keep, "keep_every": keep_every}
    train(run_config(store.path, tmp_path / "run", checkpoint=section))
    assert names(tmp_path / "run") == expected
    # Counted in the run's own steps: this one begins at step 6, and 9 is its third.
    fields = {"start_from": str(tmp_path / "run"), "training": {"steps": 4}}
    config = run_config(store.path, tmp_path / "next", **fields, checkpoint=section)
    _, parent = load_checkpoint(find_checkpoint(tmp_path / "run"))
    config = config.model_copy(update={"model": parent.model})
    train(config)
    own = {step - 6 for step in names(tmp_path / "next")}
    assert {step for step in own if step % keep_every == 0} == {
        step for step in range(5) if step % keep_every == 0 and step % every == 0
    }


ASYNCHRONOUS = {"every": 1, "keep": 9, "asynchronous": True}


def test_asynchronous_saves_hold_what_synchronous_ones_do(
    store: TokenStore, tmp_path: Path
) -> None:
    runs = [tmp_path / "synchronous", tmp_path / "asynchronous"]
    for run, asynchronous in zip(runs, (False, True), strict=True):
        section = {**ASYNCHRONOUS, "asynchronous": asynchronous}
        train(run_config(store.path, run, checkpoint=section))
        assert names(run) == [0, 1, 2, 3, 4, 5, 6]
    for step in range(7):
        states = [load_checkpoint(step_folder(run, step))[1] for run in runs]
        for kind in ("weights", "exp_avg", "exp_avg_sq"):
            one, other = (getattr(state, kind) for state in states)
            assert all(torch.equal(one[name], other[name]) for name in one), (step, kind)


class Slow:
    """Saving that holds one step back until `go`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, held_back: int) -> None:
        self.go = threading.Event()
        self.asked: list[int] = []
        self.done: list[int] = []
        self.overlap = False
        real = hook_module.save_checkpoint

        def save(folder: Path, *args: Any, **kwargs: Any) -> None:
            self.overlap |= self.asked != self.done
            self.asked.append(int(folder.name[5:]))
            if self.asked[-1] == held_back:
                assert self.go.wait(30)
            real(folder, *args, **kwargs)
            self.done.append(self.asked[-1])

        monkeypatch.setattr(hook_module, "save_checkpoint", save)


def test_the_next_save_waits_for_the_one_before_and_the_run_does_not(
    store: TokenStore, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, run = Slow(monkeypatch, held_back=2), tmp_path / "run"
    seen: list[list[int]] = []

    def look() -> None:
        # One step after the save of step 2 began, and one before the next would.
        seen.append(list(slow.asked))
        assert names(run) == [0]
        # By then the run has come to the next save, and waits.
        threading.Timer(1.0, slow.go.set).start()

    section = {"checkpoint": {"every": 2, "keep": 9, "asynchronous": True}}
    train(run_config(store.path, run, **section), [Metrics(), SaveCheckpoints(), At(3, look)])
    assert seen == [[0, 2]]
    assert slow.asked == slow.done == [0, 2, 4, 6]
    assert not slow.overlap
    # The weights moved on while step 2 was held back; what was saved is of step 2.
    expected = load_checkpoint(step_folder(undisturbed, 2))[1].weights
    saved = load_checkpoint(step_folder(run, 2))[1].weights
    assert all(torch.equal(expected[name], saved[name]) for name in expected)


@pytest.mark.parametrize("signalled", [False, True])
def test_a_save_under_way_is_waited_for(
    store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signalled: bool
) -> None:
    slow, run = Slow(monkeypatch, held_back=4), tmp_path / "run"
    end = (lambda: os.kill(os.getpid(), signal.SIGTERM)) if signalled else crash
    threading.Timer(1.0, slow.go.set).start()
    with pytest.raises(StoppedError if signalled else Crash):
        train(
            run_config(store.path, run, checkpoint={"every": 4, "asynchronous": True}),
            [SaveCheckpoints(), At(5, end)],
        )
    assert names(run) == ([0, 4, 5] if signalled else [0, 4])
    assert not [name for name in os.listdir(run / "checkpoints") if name.startswith(".")]


def test_a_fault_in_the_background_ends_the_run(
    store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(hook_module, "save_checkpoint", broken)
    with pytest.raises(ZeroDivisionError):
        train(run_config(store.path, tmp_path / "run", checkpoint=ASYNCHRONOUS))


def test_what_a_killed_process_left_is_cleared(store: TokenStore, tmp_path: Path) -> None:
    run = tmp_path / "run"
    crashed(store, run, 3, [SaveCheckpoints()])
    folder = run / "checkpoints"
    shutil.copytree(folder / "step-00000002", folder / ".step-00000005.partial")
    (folder / "step-00000002").rename(folder / ".step-00000002.old")
    train(run_config(store.path, run))
    assert sorted(os.listdir(folder)) == [f"step-{step:08d}" for step in (2, 4, 6)]


def test_a_damaged_checkpoint_is_replaced_when_its_step_comes(
    undisturbed: Path, store: TokenStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    train(run_config(store.path, run))
    bad = next(step_folder(run, 6).glob("*.safetensors"))
    os.truncate(bad, 100)
    # With one kept, the damaged one must not be the one that stays.
    crashed(store, run, 5, [SaveCheckpoints()], checkpoint={"every": 1, "keep": 1})
    assert str(bad) in capsys.readouterr().err
    assert names(run) == [5, 6]
    load_checkpoint(step_folder(run, 5))
    train(run_config(store.path, run, checkpoint={"every": 1, "keep": 1}))
    assert names(run) == [6]
    assert not list(problems(step_folder(run, 6)))


# --- progress


def test_plain_lines_where_there_is_no_terminal(
    store: TokenStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(run_config(store.path, tmp_path / "run"), [ShowProgress("nano")])
    printed = capsys.readouterr()
    assert printed.out == ""
    pattern = r"nano: step 6/6  loss \d\.\d{3}  [\d,]+ tok/s  0 s left\n"
    assert re.fullmatch(pattern, printed.err)


def test_a_bar_on_a_terminal(
    store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = io.StringIO()
    terminal = Console(file=screen, force_terminal=True, width=80)
    monkeypatch.setattr(progress, "Console", lambda stderr: terminal)
    train(run_config(store.path, tmp_path / "run"), [ShowProgress("nano")])
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.getvalue())
    assert re.search(r"nano .*6/6 loss \d\.\d{3}  [\d,]+ tok/s", shown)


# --- faults of the hooks themselves


class Refuses(Hook):
    def on_start(self, run: Run) -> None:
        raise Crash


def test_a_hook_that_cannot_start_is_what_is_told(store: TokenStore, tmp_path: Path) -> None:
    # The others have not started, and are closed all the same.
    others: list[Hook] = [ShowProgress(), Metrics(), TensorBoard(), Evaluate(), SaveCheckpoints()]
    with pytest.raises(Crash):
        train(run_config(store.path, tmp_path / "run"), [Refuses(), *others])


def test_damaged_metrics_are_told_and_nothing_is_lost(store: TokenStore, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(run_config(store.path, run, training={"steps": 2}))
    (run / "metrics.jsonl").write_text("{]\n" + json.dumps({"step": 2}) + "\n")
    with pytest.raises(DataError, match="line 1: damaged"):
        train(run_config(store.path, run))
    assert read_jsonl(run / "evaluation.jsonl")
    assert names(run) == [0, 2]
