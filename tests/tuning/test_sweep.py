"""A sweep: what a trial depends on, killed or not, alone or not, and what it refuses."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

import teleflm.tuning.trial as trial_module
from teleflm.config.base import build
from teleflm.config.sweep import SweepConfig
from teleflm.data.store import TokenStore
from teleflm.errors import ConfigError, DataError, StoppedError
from teleflm.files import read_jsonl
from teleflm.tuning.criteria import TENTHS
from teleflm.tuning.findings import findings, read_sweep
from teleflm.tuning.pruning import first_judged
from teleflm.tuning.sampling import Judge, choose
from teleflm.tuning.space import Space
from teleflm.tuning.study import OUTCOME, Study
from teleflm.tuning.sweep import run_sweep
from tests.tiny import At, poison
from tests.tuning.sweeping import SPACE, sweep_fields, write_sweep

MATRIX = "optimizer.matrix_learning_rate"


def sweep(store: Path, sweep_dir: Path, **fields: Any) -> SweepConfig:
    return build(SweepConfig, sweep_fields(store, sweep_dir, **fields), "SWEEP.yaml")


def run(config: SweepConfig) -> list[FrozenTrial]:
    return run_sweep(config, "SWEEP.yaml").trials()


def ended(trials: list[FrozenTrial]) -> list[tuple[Any, ...]]:
    """What of trials is to be the same: all but the clock."""
    return [
        (t.number, t.state, t.value, t.params, t.intermediate_values, t.user_attrs) for t in trials
    ]


@pytest.fixture(scope="module")
def alone(store: TokenStore, tmp_path_factory: pytest.TempPathFactory) -> SweepConfig:
    """A sweep that ran undisturbed."""
    config = sweep(store.path, tmp_path_factory.mktemp("sweeps") / "alone")
    run(config)
    return config


# --- what a trial tries


def seen(number: int, state: TrialState = TrialState.COMPLETE) -> FrozenTrial:
    rate = FloatDistribution(1e-4, 1e-1, log=True)
    found = create_trial(
        state=state,
        value=float(number % 5) if state != TrialState.FAIL else None,
        params={MATRIX: 1e-3 * (1 + number)},
        distributions={MATRIX: rate},
        intermediate_values={tenth: number + 1 / tenth for tenth in range(1, 11)},
    )
    found.number = number
    return found


def test_values_follow_from_seed_number_and_what_was_seen(
    store: TokenStore, tmp_path: Path
) -> None:
    config = sweep(store.path, tmp_path, space={MATRIX: SPACE[MATRIX]})
    space, trials = Space(config, "SWEEP.yaml"), [seen(number) for number in range(12)]

    def chosen(number: int, of: list[FrozenTrial], seed: int = 0) -> dict[str, Any]:
        return choose(config.model_copy(update={"seed": seed}), space, number, of)

    value = chosen(12, trials)
    assert chosen(12, trials[::-1]) == value
    others = [chosen(13, trials), chosen(12, trials, seed=1), chosen(12, trials[1:])]
    assert value not in others
    # Too few to learn from: by chance, whoever was seen.
    assert chosen(3, trials[:3]) == chosen(3, trials[:2]) != chosen(2, trials[:2])


def test_a_sampler_keeps_away_from_what_diverged(store: TokenStore, tmp_path: Path) -> None:
    config = sweep(store.path, tmp_path, space={MATRIX: SPACE[MATRIX]})
    space = Space(config, "SWEEP.yaml")
    # The best lies at 6e-3, and below it all fail.
    good = [seen(number) for number in range(5, 15)]
    failed = [seen(number % 5, TrialState.FAIL) for number in range(40, 60)]

    def low(others: list[FrozenTrial]) -> int:
        drawn = [choose(config, space, number, others)[MATRIX] for number in range(60, 100)]
        return sum(isinstance(value, float) and value < 5.5e-3 for value in drawn)

    assert low([*good, *failed]) < low(good) / 2


def test_a_grid_has_each_combination_once(store: TokenStore, tmp_path: Path) -> None:
    space = {
        MATRIX: {"low": 1e-3, "high": 4e-3, "log": True, "steps": 3},
        "training.steps": {"low": 4, "high": 8, "steps": 2},
    }
    config = sweep(store.path, tmp_path, space=space, sampler="grid", trials=None)
    found = Space(config, "SWEEP.yaml")
    assert found.trials == 6
    tried = [tuple(found.combination(number).values()) for number in range(6)]
    assert sorted(tried) == [(r, s) for r in (1e-3, 2e-3, 4e-3) for s in (4, 8)]
    assert all(isinstance(steps, int) for _, steps in tried)
    fewer = Space(config.model_copy(update={"trials": 2}), "SWEEP.yaml")
    assert [tuple(fewer.combination(n).values()) for n in range(fewer.trials)] == tried[:2]


# --- pruning


def judged(pruner: Any, losses: list[float], others: list[FrozenTrial]) -> int | None:
    """The tenth after which a trial ends."""
    judge = Judge(pruner, others)
    return next((at for at, loss in enumerate(losses, 1) if judge.prunes(at, loss)), None)


def test_the_median_prunes_what_is_worse_than_half_of_those_before_it() -> None:
    others = [seen(number) for number in range(6)]
    assert judged("median", [9.0] * 10, others) == 1
    assert judged("median", [0.5] * 10, others) is None
    assert judged("median", [9.0] * 10, others[:4]) is None
    assert judged("none", [9.0] * 10, others) is None
    assert judged("median", [math.nan] * 10, others) is None
    assert judged("median", [math.nan] * 5 + [9.0], others) == 6


@pytest.mark.parametrize(
    ("warmup", "steps", "first"), [(0, 300, 3), (50, 1000, 3), (50, 300, 4), (50, 100, 7)]
)
def test_a_trial_is_judged_once_its_warm_up_is_made_up_for(
    store: TokenStore, tmp_path: Path, warmup: int, steps: int, first: int
) -> None:
    keys = {"schedule": {"warmup_steps": warmup}, "training": {"steps": steps, "global_batch": 2}}
    config = sweep(store.path, tmp_path, run=keys)
    assert first_judged(Space(config, "SWEEP.yaml").base) == first


def test_a_sweep_that_can_prune_nothing_says_so(
    store: TokenStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = sweep(
        store.path,
        tmp_path / "s",
        trials=1,
        pruner="median",
        run={"schedule": {"warmup_steps": 50}},
    )
    assert run(config)[0].state == TrialState.COMPLETE
    assert "no trial will be pruned" in capsys.readouterr().err


def test_halving_knows_the_rungs_of_those_before_it() -> None:
    first = Judge("halving", [])
    assert not any(first.prunes(tenth, 2.0) for tenth in range(1, 10))
    assert first.marks == {"completed_rung_0": 2.0, "completed_rung_1": 2.0}
    other = seen(0)

    other.system_attrs = first.marks
    assert judged("halving", [3.0] * 9, [other]) == 3
    assert judged("halving", [1.0] * 9, [other]) is None


def test_a_pruned_trial_is_told_and_found_again(
    store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = {"space": {MATRIX: {"choices": [3e-2, 2e-2, 4e-2, 5e-2, 6e-2, 1e-5]}}, "seed": 14}
    # At whichever step it is pruned, a checkpoint is saved just before.
    run_keys = {"checkpoint": {"every": 1}}
    config = sweep(
        store.path,
        tmp_path / "s",
        run=run_keys,
        sampler="grid",
        trials=None,
        pruner="median",
        **grid,
    )
    # The worst of them comes last.
    assert Space(config, "s").combination(5)[MATRIX] == 1e-5
    finish = Study.finish

    def die_unheard(study: Study, number: int, outcome: Any) -> None:
        if number == 5:
            raise KeyboardInterrupt
        finish(study, number, outcome)

    with monkeypatch.context() as patch:
        patch.setattr(Study, "finish", die_unheard)
        with pytest.raises(KeyboardInterrupt):
            run(config)
    assert read_sweep(tmp_path / "s")[1][5].state == TrialState.RUNNING
    trials = run(config)
    assert trials[5].state == TrialState.PRUNED
    end = max(trials[5].intermediate_values)
    # Two tenths after the warm-up at the soonest.
    assert 4 <= end < TENTHS
    assert trials[5].value == trials[5].intermediate_values[end]
    lines = read_jsonl(tmp_path / "s" / "trials" / "0005" / "metrics.jsonl")
    assert len(lines) == end
    told = findings(*read_sweep(tmp_path / "s"))
    assert told["trials"][5]["state"] == "pruned"
    assert told["trials"][5]["loss"] is None


# --- faults of a trial


def test_a_trial_that_diverges_does_not_end_the_sweep(
    store: TokenStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    poison(monkeypatch, set(range(3, 11)))
    config = sweep(store.path, tmp_path / "s", trials=1, run={"faults": {"max_in_a_row": 2}})
    trials = run(config)
    assert [trial.state for trial in trials] == [TrialState.FAIL]
    assert "trial 0: diverged, " in capsys.readouterr().err
    told = findings(*read_sweep(tmp_path / "s"))
    assert told["best"] is None
    assert told["trials"][0]["state"] == "diverged"
    assert told["trials"][0]["skips"] == 2
    assert "after 2 skipped steps in a row" in told["trials"][0]["reason"]
    with pytest.raises(ConfigError, match=r"no trial of .* is complete yet"):
        findings(*read_sweep(tmp_path / "s"), to="nano-52b")


def test_values_that_together_make_no_run_are_told(store: TokenStore, tmp_path: Path) -> None:
    space = {
        "model.hidden_size": {"choices": [48, 32]},
        "model.num_attention_heads": {"choices": [4, 6]},
    }
    config = sweep(store.path, tmp_path / "s", space=space, trials=3, sampler="random", seed=1)
    run(config)
    told = findings(*read_sweep(tmp_path / "s"))["trials"]
    assert {"invalid", "complete"} == {trial["state"] for trial in told}
    bad = next(trial for trial in told if trial["state"] == "invalid")
    assert bad["values"] == {"model.hidden_size": 32, "model.num_attention_heads": 6}
    assert "does not divide" in bad["reason"]


def test_seeds_are_averaged_and_their_noise_told(store: TokenStore, tmp_path: Path) -> None:
    config = sweep(store.path, tmp_path / "s", trials=2, seeds=2)
    run(config)
    told = findings(*read_sweep(tmp_path / "s"))
    for trial in told["trials"]:
        assert trial["seeds"].keys() == {"3", "4"}
        assert trial["loss"] == pytest.approx(sum(trial["seeds"].values()) / 2)
        assert (tmp_path / "s" / "trials" / f"{trial['number']:04}" / "seed-4").is_dir()
    pairs = [list(trial["seeds"].values()) for trial in told["trials"]]
    deviation = math.sqrt(sum((a - b) ** 2 / 2 for a, b in pairs) / 2)
    assert told["noise"]["standard_deviation"] == pytest.approx(deviation)
    assert told["best_trial"] in told["noise"]["as_good"]


# --- killed, stopped, shared


def test_a_signal_saves_and_the_same_command_goes_on(
    store: TokenStore, tmp_path: Path, alone: SweepConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = alone.model_copy(update={"sweep_dir": str(tmp_path / "s"), "trials": 1})
    stop = At(6, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with monkeypatch.context() as patch:
        patch.setattr(trial_module, "TensorBoard", lambda: stop)
        with pytest.raises(StoppedError) as stopped:
            run(config)
    assert stopped.value.exit_code == 143
    _, trials = read_sweep(tmp_path / "s")
    assert [trial.state for trial in trials] == [TrialState.RUNNING]
    assert findings(config, trials)["trials"][0]["state"] == "running"
    assert ended(run(config)) == ended(run(alone)[:1])


# It forks as often as the sweep needs lives, each of which dies at a certain event: an open file or
# a rename below the sweep's folder, or a word to the study. What a life needs is loaded before.
DRILL = """
import os, signal, sys
from pathlib import Path
import alembic.command, alembic.config, alembic.migration, alembic.script, sqlalchemy.orm
import torch, torch.utils.tensorboard
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from teleflm.config.sweep import load_sweep
from teleflm.training.loop import train
from teleflm.tuning.space import run_of
from teleflm.tuning.sweep import run_sweep

torch.set_num_threads(1)
path, root, lives = sys.argv[1], sys.argv[2], 0
warm = load_sweep(Path(path), ["run.training.steps=1"])
train(run_of(warm, {}, Path(root + "-warm"), 0))
armed, left = False, 0

def event(*_):
    global left
    if armed:
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

def audit(name, arguments):
    if name in ("open", "os.mkdir", "os.rename", "os.remove") and root in str(arguments[0]):
        event()

def told(name):
    method = getattr(RDBStorage, name)
    def tell(*args, **more):
        event()
        result = method(*args, **more)
        event()
        return result
    setattr(RDBStorage, name, tell)

sys.addaudithook(audit)
for name in ("create_new_study", "set_study_user_attr", "create_new_trial", "set_trial_user_attr",
             "set_trial_intermediate_value", "set_trial_state_values"):
    told(name)

def life(after):
    global armed, left
    process = os.fork()
    if process == 0:
        armed, left = after is not None, after or 0
        run_sweep(load_sweep(Path(path), ["sweep_dir=" + root]), path)
        os._exit(0)
    return process

while True:
    process = life(10 + 67 * lives % 230)
    lives += 1
    if os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0:
        break
print(lives)
root = root + "-shared"
for process in [life(None), life(None)]:
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
"""


@pytest.mark.slow
def test_killed_and_shared_sweeps_have_the_trials_of_one_left_alone(
    store: TokenStore, tmp_path: Path, alone: SweepConfig
) -> None:
    path = write_sweep(tmp_path / "sweep.yaml", sweep_fields(store.path, tmp_path))
    killed = tmp_path / "killed"
    command = [sys.executable, "-c", DRILL, str(path), str(killed)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 8
    _, expected = read_sweep(Path(alone.sweep_dir))
    assert ended(read_sweep(killed)[1]) == ended(expected)
    # Of those that run at the same time a trial sees fewer, which chance does not mind.
    shared = read_sweep(tmp_path / "killed-shared")[1]
    begun = [line.split()[1] for line in done.stderr.splitlines() if ": complete" in line]
    assert sorted(begun[-3:]) == ["0:", "1:", "2:"]
    unseen = [trial.user_attrs.pop("unseen") for trial in shared]
    assert all(set(below) <= set(range(number)) for number, below in enumerate(unseen))
    for trial in expected:
        trial.user_attrs.pop("unseen")
    assert ended(shared) == ended(expected)


@pytest.mark.slow
def test_workers_of_one_command(store: TokenStore, tmp_path: Path, alone: SweepConfig) -> None:
    changes = {"sweep_dir": str(tmp_path / "s"), "workers": 2, "trials": 2}
    found = run(alone.model_copy(update=changes))
    expected = read_sweep(Path(alone.sweep_dir))[1][:2]
    assert [(t.params, t.state) for t in found] == [(t.params, t.state) for t in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.value == pytest.approx(other.value, rel=1e-4)


# --- what is refused


def test_more_trials_are_welcome_and_another_sweep_is_not(
    store: TokenStore, tmp_path: Path, alone: SweepConfig
) -> None:
    shutil.copytree(alone.sweep_dir, tmp_path / "s")
    config = alone.model_copy(update={"sweep_dir": str(tmp_path / "s")})
    first = ended(run(config))
    more = ended(run(config.model_copy(update={"trials": 4})))
    assert (more[:3], len(more)) == (first, 4)
    space = {**SPACE, MATRIX: {"low": 1e-4, "high": 2e-1, "log": True}}
    changed: list[tuple[dict[str, Any], str]] = [
        ({"seed": 1}, "its study has seed = 0, this sweep 1"),
        ({"space": space}, rf"space\.{MATRIX}\.high = 0\.1, this sweep 0\.2"),
        ({"space": {MATRIX: SPACE[MATRIX]}}, r"space\.optimizer\.betas = "),
        ({"run": {"training": {"steps": 11}}}, r"run\.training\.steps = 10, this sweep 11"),
        ({"seeds": [5]}, r"seeds = \[3\], this sweep \[5\]"),
        ({"pruner": "median"}, "pruner = 'none'"),
    ]
    for fields, message in changed:
        with pytest.raises(ConfigError, match=message):
            run(sweep(store.path, tmp_path / "s", **fields))
    (tmp_path / "s" / "study.db").unlink()
    with pytest.raises(DataError, match=r"study\.db is gone"):
        read_sweep(tmp_path / "s")
    assert not (tmp_path / "s" / "study.db").exists()
    with pytest.raises(ConfigError, match="has a run, or trials whose study is not in the storage"):
        run(config)


Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("space", "run_keys", "message"),
    [
        (
            {"optimizer.matrix_learning_rat": {"low": 1.0, "high": 2.0}},
            {},
            r"unknown key 'optimizer\.matrix_learning_rat'; did you mean "
            r"'optimizer\.matrix_learning_rate'",
        ),
        ({"optimiser.eps": {"choices": [1e-8]}}, {}, "did you mean 'optimizer'"),
        (
            {"schedule.min_ratio": {"low": 0.0, "high": 1.5}},
            {},
            r"with schedule\.min_ratio = 1\.5: run: schedule\.min_ratio: .*less than or equal to 1",
        ),
        (
            {"data.sequence_length": {"choices": [16, 80]}},
            {},
            r"with data\.sequence_length = 80: .* more than max_position_embeddings 64",
        ),
        (
            {"model.vocab_size": {"choices": [464, 300]}},
            {},
            r"with model\.vocab_size = 300: model\.vocab_size 300 is less than the token store's",
        ),
        ({"training.steps": {"low": 1.5, "high": 3.0}}, {}, r"training\.steps: Input should be a"),
        ({"training": {"low": 1.5, "high": 3.0}}, {}, r"training = 1\.5: run: training: .* object"),
        ({}, {"seed": "x"}, "seed: Input should be a valid integer"),
        ({}, {"data": {"path": "nowhere"}}, "nowhere"),
    ],
)
def test_what_makes_no_run_is_found_before_the_first_trial(
    store: TokenStore, tmp_path: Path, space: dict[str, Any], run_keys: Any, message: str
) -> None:
    config = sweep(store.path, tmp_path / "s", space={**SPACE, **space}, run=run_keys)
    with pytest.raises((ConfigError, DataError), match=message):
        run(config)
    assert not (tmp_path / "s").exists()


def test_storages(store: TokenStore, tmp_path: Path, alone: SweepConfig) -> None:
    journal = str(tmp_path / "journal.log")
    config = alone.model_copy(update={"sweep_dir": str(tmp_path / "s"), "storage": journal})
    run(config.model_copy(update={"trials": 1}))
    expected = ended(read_sweep(Path(alone.sweep_dir))[1][:2])
    assert ended(run(config.model_copy(update={"trials": 2}))) == expected
    assert ended(read_sweep(tmp_path / "s")[1]) == expected
    (tmp_path / "points.json").write_text("{}")
    for storage in (
        "postgresql://me:secret@host/sweeps",
        "postgresql://me:secret@host:port/sweeps",
        str(tmp_path / "no" / "file.log"),
        str(tmp_path / "points.json"),
    ):
        with pytest.raises(ConfigError, match="cannot be opened") as refused:
            run(config.model_copy(update={"storage": storage}))
        assert "secret" not in str(refused.value)
    assert (tmp_path / "points.json").read_text() == "{}"
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "study.db").write_bytes(b"no database" * 100)
    with pytest.raises(ConfigError, match=r"study\.db: cannot be opened \(.*not a database"):
        run(config.model_copy(update={"sweep_dir": str(tmp_path / "bad"), "storage": None}))


def test_a_study_that_no_sweep_made_stays(store: TokenStore, tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'others.db'}"
    theirs = optuna.create_study(storage=storage, study_name="s")
    theirs.add_trial(create_trial(value=1.0))
    with pytest.raises(ConfigError, match="the study 's' in its storage has trials that no sweep"):
        run(sweep(store.path, tmp_path / "s", storage=storage))
    assert (len(theirs.trials), theirs.user_attrs) == (1, {})
    (tmp_path / "s" / "config.yaml").write_text(
        yaml.safe_dump(sweep_fields(store.path, tmp_path / "s", storage=storage))
    )
    with pytest.raises(DataError, match="has no study 's' of a sweep"):
        read_sweep(tmp_path / "s")


def test_a_record_is_plain_json(alone: SweepConfig) -> None:
    _, trials = read_sweep(Path(alone.sweep_dir))
    told = findings(alone, trials, to="nano-1t")
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert [trial["state"] for trial in told["trials"]] == ["complete"] * 3
    assert trials[0].user_attrs[OUTCOME]["state"] == "complete"
    best = min(told["trials"], key=lambda trial: trial["loss"])
    assert (told["best"], told["best_trial"]) == (best["values"], best["number"])
