"""Whatever stops a run, the same command goes on, and ends as if nothing had been."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch.distributed.checkpoint as dcp

from teleflm.checkpoint.load import checkpoints, find_checkpoint, load_checkpoint
from teleflm.checkpoint.save import save_checkpoint, step_folder
from teleflm.config.run import resolve_run
from teleflm.data.store import TokenStore, prepare
from teleflm.data.tokenizer_training import train_tokenizer
from teleflm.errors import (
    CheckpointError,
    ConfigError,
    GrowthError,
    MachineError,
    RunLockedError,
    StoppedError,
)
from teleflm.files import read_jsonl
from teleflm.growth.grow import Growth
from teleflm.parallel.ranks import Ranks
from teleflm.training import signals
from teleflm.training.growing import grow_checkpoint
from teleflm.training.hooks.base import Hook
from teleflm.training.loop import default_hooks, train
from teleflm.training.run import Run, StepRecord
from teleflm.training.signals import stop_request
from teleflm.training.start import resolve_config
from tests.growing import fresh_state
from tests.tiny import MODEL, At, assert_same_run, run_config, run_fields, write_run

# Long enough to be met by a signal, and with growth masks that are open all the way.
STEPS = 120
LONG: dict[str, Any] = {
    "training": {"steps": STEPS},
    "checkpoint": {"every": 50},
    "evaluation": {"every": 60},
    "growth": {"to": {"hidden_size": 40, "num_hidden_layers": 3}, "ramp": 1000},
}


@pytest.fixture(scope="module")
def undisturbed(store: TokenStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(run_config(store.path, tmp_path_factory.mktemp("runs") / "undisturbed", **LONG))


@pytest.fixture
def short(store: TokenStore, tmp_path: Path) -> Path:
    """An undisturbed run of six steps."""
    return train(run_config(store.path, tmp_path / "short"))


def lines(run: Path) -> int:
    file = run / "metrics.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


def started(file: Path, run: Path, steps: int) -> subprocess.Popen[str]:
    """`teleflm train` as a process of its own, `steps` further steps on its way."""
    goal = lines(run) + steps
    process = subprocess.Popen(
        [sys.executable, "-m", "teleflm", "train", str(file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while lines(run) < goal and process.poll() is None:
        time.sleep(0.005)
    return process


@pytest.mark.slow
def test_signals_stop_a_process_that_goes_on_with_the_same_bits(
    store: TokenStore, undisturbed: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    file = write_run(tmp_path / "run.yaml", run_fields(store.path, run, **LONG))
    done = 0
    for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        process = started(file, run, 5)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out) == (code, ""), err
        step = load_checkpoint(find_checkpoint(run))[0].step
        assert done < step < STEPS
        assert f"error: stopped by signal {number:d}; saved at step {step} of {STEPS}" in err
        assert "Traceback" not in err
        done = step

    process = started(file, run, 2)
    with pytest.raises(RunLockedError, match="another process is at work"):
        train(run_config(store.path, run, **LONG))
    process.kill()
    process.communicate()
    train(run_config(store.path, run, **LONG))
    assert_same_run(run, undisturbed)


def stopped(store: TokenStore, run: Path, step: int, number: int) -> None:
    hook = At(step, lambda: os.kill(os.getpid(), number))
    with pytest.raises(StoppedError) as error:
        train(run_config(store.path, run), [*default_hooks(), hook])
    assert error.value.exit_code == 128 + number


def test_a_stop_after_any_step(store: TokenStore, short: Path, tmp_path: Path) -> None:
    run, before = tmp_path / "run", signal.getsignal(signal.SIGTERM)
    for step in (1, 2, 5):
        stopped(store, run, step, signal.SIGTERM)
        assert find_checkpoint(run).name == f"step-{step:08d}"
    assert signal.getsignal(signal.SIGTERM) is before
    train(run_config(store.path, run))
    assert_same_run(run, short)


def test_a_signal_at_the_last_step_stops_what_comes_after(
    store: TokenStore, tmp_path: Path
) -> None:
    stopped(store, tmp_path / "run", 6, signal.SIGTERM)
    assert train(run_config(store.path, tmp_path / "run"))


@pytest.mark.parametrize("before", [signal.default_int_handler, signal.SIG_IGN])
def test_a_second_signal_ends_it_at_once(
    store: TokenStore, short: Path, tmp_path: Path, before: Any
) -> None:
    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    run = tmp_path / "run"
    found = signal.signal(signal.SIGINT, before)
    try:
        with pytest.raises(KeyboardInterrupt):
            train(run_config(store.path, run), [*default_hooks(), At(3, twice)])
        assert signal.getsignal(signal.SIGINT) == before
    finally:
        signal.signal(signal.SIGINT, found)
    assert find_checkpoint(run).name == "step-00000002"
    train(run_config(store.path, run))
    assert_same_run(run, short)


def test_a_signal_that_comes_while_ranks_agree_is_not_lost(
    store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, asked = Ranks.largest, []

    def largest(ranks: Ranks, value: int) -> int:
        asked.append(real(ranks, value))
        if len(asked) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return asked[-1]

    monkeypatch.setattr(Ranks, "largest", largest)
    with pytest.raises(StoppedError, match="saved at step 2 of"):
        train(run_config(store.path, tmp_path / "run"))
    assert asked == [0, 0, signal.SIGTERM]


def test_a_sigterm_that_comes_twice_is_one(store: TokenStore, tmp_path: Path) -> None:
    def twice() -> None:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(StoppedError):
        train(run_config(store.path, tmp_path / "run"), [*default_hooks(), At(3, twice)])
    assert find_checkpoint(tmp_path / "run").name == "step-00000003"


def test_a_later_sigterm_or_another_signal_ends_it_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended: list[int] = []
    for number, later in ((signal.SIGTERM, 3.0), (signal.SIGINT, 0.0)):
        with stop_request() as stop:
            os.kill(os.getpid(), signal.SIGTERM)
            now = time.monotonic() + later
            with monkeypatch.context() as patch:
                patch.setattr(signals.time, "monotonic", lambda now=now: now)
                patch.setattr(signals.os, "kill", lambda _, number: ended.append(number))
                signal.raise_signal(number)
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
            assert stop.signal_number == signal.SIGTERM
    assert ended == [signal.SIGTERM, signal.SIGINT]


def disk_full_at(monkeypatch: pytest.MonkeyPatch, steps: set[int]) -> None:
    """Make the saves of some steps fail."""
    real = dcp.save

    def save(*args: Any, storage_writer: Any, **kwargs: Any) -> Any:
        folder = Path(storage_writer.path).name
        if int(folder.removeprefix(".step-").removesuffix(".partial")) in steps:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*args, storage_writer=storage_writer, **kwargs)

    monkeypatch.setattr(dcp, "save", save)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_full_disk_does_not_end_a_run(
    store: TokenStore,
    short: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    asynchronous: bool,
) -> None:
    run = tmp_path / "run"
    disk_full_at(monkeypatch, {4})
    train(run_config(store.path, run, checkpoint={"keep": 2, "asynchronous": asynchronous}))
    said = capsys.readouterr().err
    assert f"without this checkpoint: {step_folder(run, 4)}: not written (No space left" in said
    # Nothing older was removed for the one that was not written.
    assert sorted(os.listdir(run / "checkpoints")) == ["step-00000002", "step-00000006"]
    assert_same_run(run, short)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_full_disk_at_the_end_is_an_error(
    store: TokenStore,
    short: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    asynchronous: bool,
) -> None:
    run = tmp_path / "run"
    config = run_config(store.path, run, checkpoint={"asynchronous": asynchronous})
    with monkeypatch.context() as patch:
        disk_full_at(patch, {4, 6})
        with pytest.raises(MachineError, match=r"step-00000006: not written \(No space left"):
            train(config)
    assert sorted(os.listdir(run / "checkpoints")) == ["step-00000000", "step-00000002"]
    train(config)
    assert_same_run(run, short)


def test_a_loss_that_is_not_finite(store: TokenStore, tmp_path: Path) -> None:
    run = tmp_path / "run"
    optimizer, faults = {"learning_rate": 1e38}, {"max_in_a_row": 2}
    config = run_config(store.path, run, optimizer=optimizer, faults=faults)
    with pytest.raises(
        MachineError, match=r"step \d: loss (nan|inf), after 2 .*learning rate"
    ) as bad:
        train(config)
    assert bad.value.exit_code == 1
    losses = [line["loss"] for line in read_jsonl(run / "metrics.jsonl")]
    assert losses[-2:] == [None, None] and all(loss < 1e30 for loss in losses[:-2])
    # The first update was taken: its figures were sound, what it made of the weights is not.
    _, state = load_checkpoint(checkpoints(run)[0])
    assert all(weight.isfinite().all() for weight in state.weights.values())


@pytest.mark.parametrize(
    ("sections", "key"),
    [
        ({"seed": 4}, "seed"),
        ({"model": {"output_mult": 0.8}}, r"model\.output_mult"),
        ({"data": {"sequence_length": 8}}, r"data\.sequence_length"),
        ({"training": {"global_batch": 2}}, r"training\.global_batch"),
        ({"training": {"dtype": "fp64"}}, r"training\.dtype"),
        ({"optimizer": {"betas": [0.9, 0.99]}}, r"optimizer\.betas"),
        ({"schedule": {"kind": "wsd"}}, r"schedule\.kind"),
        ({"growth": {"to": {"hidden_size": 40}}}, "growth"),
    ],
)
def test_another_run_in_the_same_folder(
    short: Path, store: TokenStore, sections: Any, key: str
) -> None:
    saved = (short / "config.yaml").read_bytes()
    with pytest.raises(ConfigError, match=rf"{short}: its run has {key} = .*another run_dir"):
        train(run_config(store.path, short, **sections))
    assert (short / "config.yaml").read_bytes() == saved


def test_what_may_change(short: Path, store: TokenStore, tmp_path: Path) -> None:
    moved = short.rename(tmp_path / "moved")
    changes: dict[str, Any] = {
        "training": {"steps": 8, "micro_batch": 2},
        "checkpoint": {"every": 1, "keep": 2},
        "evaluation": {"every": 1},
    }
    train(run_config(store.path, moved, **changes))
    assert [path.name for path in checkpoints(moved)] == ["step-00000007", "step-00000008"]
    # A shorter run is over already, and nothing is taken back.
    train(run_config(store.path, moved))
    assert find_checkpoint(moved).name == "step-00000008"
    assert len(read_jsonl(moved / "metrics.jsonl")) == 8


def test_a_start_that_is_not_there(store: TokenStore, tmp_path: Path) -> None:
    fields = run_fields(store.path, tmp_path / "run", start_from=str(tmp_path / "none"))
    with pytest.raises(CheckpointError, match="none: no such checkpoint"):
        resolve_config(fields, "f")
    config = resolve_run({**fields, "model": MODEL.model_dump() | {"vocab_size": 424}}, "f")
    with pytest.raises(CheckpointError, match="none: no such checkpoint"):
        train(config)


def test_a_start_from_another_model(short: Path, store: TokenStore, tmp_path: Path) -> None:
    fields = run_fields(store.path, tmp_path / "run", start_from=str(short))
    assert resolve_config(fields, "f").model.hidden_size == 32
    fields["model"]["intermediate_size"] = 64
    with pytest.raises(ConfigError, match=r"model\.intermediate_size is 64.* has 48"):
        resolve_config(fields, "f")
    save_checkpoint(tmp_path / "small", fresh_state(MODEL), None, None)
    fields = run_fields(store.path, tmp_path / "run", start_from=str(tmp_path / "small"))
    with pytest.raises(ConfigError, match=r"vocab_size 40 is less than the token store's 424"):
        train(resolve_config(fields, "f"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("to", "message"),
    [
        ({"hidden_size": 16}, "hidden_size would shrink from 32 to 16"),
        ({"head_dim": 4}, "head_dim must stay 8"),
        ({"num_hidden_layers": 1}, "num_hidden_layers would shrink"),
    ],
)
def test_a_growth_that_masks_cannot_do(
    store: TokenStore, tmp_path: Path, to: dict[str, int], message: str
) -> None:
    config = run_config(store.path, tmp_path / "run", growth={"to": to})
    with pytest.raises(GrowthError, match=message):
        train(config)
    assert not checkpoints(tmp_path / "run")


def test_data_of_another_tokenizer(
    short: Path, store: TokenStore, corpus: Path, tmp_path: Path
) -> None:
    train_tokenizer([corpus / "english.jsonl"], store.vocab_size, tmp_path / "tokenizer")
    other = prepare([corpus], tmp_path / "tokenizer", tmp_path / "store", held_out=0.1)
    model = {"vocab_size": store.vocab_size}
    moved = short.rename(tmp_path / "moved")
    saved = (moved / "tokenizer" / "tokenizer.json").read_bytes()
    with pytest.raises(ConfigError, match=r"data\.path.* another"):
        train(run_config(other.path, moved, model=model))
    assert (moved / "tokenizer" / "tokenizer.json").read_bytes() == saved
    fields = run_fields(other.path, tmp_path / "next", start_from=str(moved))
    del fields["model"]
    with pytest.raises(ConfigError, match="another tokenizer than"):
        train(resolve_config(fields, "f"))


def test_a_model_that_is_not_the_checkpoint_s(
    short: Path, store: TokenStore, tmp_path: Path
) -> None:
    fields = run_fields(store.path, tmp_path / "run", start_from=str(short))
    fields["model"]["output_mult"] = 0.9
    with pytest.raises(ConfigError, match="its model is not the run's"):
        train(resolve_run(fields, "f"))  # resolved without the checkpoint


def test_layers_are_measured_on_windows_that_the_text_has(
    corpus: Path, tokenizer_dir: Path, tmp_path: Path
) -> None:
    little = tmp_path / "little.jsonl"
    little.write_text('{"text": "one two three four five six seven"}\n' * 9, encoding="utf-8")
    store = prepare([little], tokenizer_dir, tmp_path / "store", held_out=0.1)
    model = {"max_position_embeddings": 5000}
    growth = {"to": {"hidden_size": 40, "num_hidden_layers": 3}, "place": "distance"}
    run = train(run_config(store.path, tmp_path / "run", model=model, growth=growth))
    assert grow_checkpoint(
        find_checkpoint(train(run_config(store.path, tmp_path / "parent", model=model))),
        tmp_path / "grown",
        Growth(load_checkpoint(find_checkpoint(run))[1].model, place="distance", ramp=4),
    )


def test_a_child_reads_on_where_its_parent_stopped(
    short: Path, store: TokenStore, tmp_path: Path
) -> None:
    fields = run_fields(store.path, tmp_path / "next", start_from=str(short), seed=3)
    del fields["model"]
    seen: list[list[tuple[str, int]]] = []
    counts: list[int] = []

    class Watch(Hook):
        def on_step(self, run: Run, record: StepRecord) -> None:
            seen.append(run.loader.sources(run.step - 1))
            counts.append(run.state().sequences)

    for run in (run_config(store.path, tmp_path / "parent"), resolve_config(fields, "f")):
        train(run, [Watch()])
    rows = [row for batch in seen for row in batch]
    assert len(rows) == 2 * 6 * 4
    assert len(set(rows)) == len(rows)
    assert counts == [4 * (step + 1) for step in range(12)]
