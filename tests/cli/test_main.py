"""The command line as a whole: help, JSON, exit codes."""

import errno
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer

import teleflm as package
from teleflm.certificate import certify
from teleflm.cli.main import app
from teleflm.config.model import ModelConfig
from teleflm.config.resolve import resolve_model
from teleflm.data import store as store_module
from teleflm.data.store import TokenStore
from teleflm.demo import story
from teleflm.errors import StoppedError
from teleflm.model.axes import parameters_of
from teleflm.parallel import launcher
from teleflm.training import loop
from tests.conftest import Command
from tests.tiny import run_fields, write_run


def verbs(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, below in getattr(command, "commands", {}).items():
        yield from verbs(below, (*path, name))
    if not hasattr(command, "commands"):
        yield path


VERBS = list(verbs(typer.main.get_command(app)))


def test_every_verb_is_there() -> None:
    names = "demo train series grow verify export generate inspect"
    groups = {("tokenizer", "train"), ("data", "prepare"), ("data", "inspect")}
    assert {(name,) for name in names.split()} | groups <= set(VERBS)


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_help_fits_and_has_an_example(
    teleflm: Command, verb: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, out, err = teleflm(*verb, "--help")
    assert (code, err) == (0, "")
    assert f"Example: teleflm {' '.join(verb)} " in out.replace("\n", " ")
    lines = [line.strip() for line in out.splitlines()]
    assert max(map(len, lines)) <= 80
    assert not re.search(r"\{[a-z]+\}", lines[1]), "an argument by its name in the code"
    prose = lines[: next(i for i, line in enumerate(lines) if line.startswith("╭"))]
    for line, below in pairwise(prose):
        # Lines end where the page does, not where the docstring's did.
        assert not (line and below) or len(f"{line} {below.split()[0]}") > 78


def test_a_bare_command_shows_its_help_and_is_a_usage_error(teleflm: Command) -> None:
    for arguments in ((), ("data",), ("tokenizer",)):
        code, out, err = teleflm(*arguments)
        assert code == 2
        assert "Usage: " in out
        assert "Traceback" not in err


def test_version(teleflm: Command) -> None:
    assert teleflm("--version") == (0, f"teleflm {package.__version__}\n", "")


# --- importing


QUICK = """
import sys
import teleflm
assert not {"torch", "numpy", "pydantic"} & set(sys.modules), "import teleflm"
import teleflm.cli.main
heavy = {"torch", "numpy", "transformers", "pyarrow", "tokenizers", "matplotlib", "tensorboard"}
assert not heavy & set(sys.modules), sorted(heavy & set(sys.modules))
"""


def test_importing_loads_nothing_heavy() -> None:
    done = subprocess.run(
        [sys.executable, "-c", QUICK], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_module_is_the_command() -> None:
    command = [sys.executable, "-m", "teleflm"]
    done = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"teleflm {package.__version__}\n"
    failed = subprocess.run([*command, "nonsense"], capture_output=True, text=True, check=False)
    assert (failed.returncode, failed.stdout) == (2, "")
    assert failed.stderr.startswith("error: ")
    assert failed.stderr.count("\n") == 1


def test_the_names_for_python() -> None:
    assert package.certify is certify.certify
    assert package.train is loop.train
    assert package.ModelConfig is ModelConfig
    assert set(package.__all__) - {"__version__"} == set(package._HOMES)
    with pytest.raises(AttributeError, match="'nonsense'"):
        package.nonsense  # noqa: B018


# --- JSON


def only_json(outcome: tuple[Any, str, str], code: int = 0) -> dict[str, Any]:
    """The one JSON object on standard output."""
    assert outcome[0] == code, outcome[2]
    found = json.loads(outcome[1])
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize(
    ("preset", "count", "published"),
    [
        ("tele-flm-52b", 52_817_829_888, 52.85e9),
        ("tele-flm-102b", 102_198_487_040, 102.3e9),
        ("tele-flm-1t", 1_083_735_265_280, 1083.74e9),
    ],
)
def test_inspect_a_preset(teleflm: Command, preset: str, count: int, published: float) -> None:
    found = only_json(teleflm("inspect", preset, "--json"))
    assert (found["parameters"], found["parameters_published"]) == (count, published)
    assert found["config"]["vocab_size"] == 80_000
    assert found["axes"]["model.layers.*.self_attn.q_proj.weight"] == ["heads", "hidden"]
    assert list(found["axes"]) == list(parameters_of(resolve_model(preset)))
    assert "step" not in found
    shown = teleflm("inspect", preset).out
    assert f"{count:,} parameters" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_inspect_a_checkpoint(teleflm: Command, run: Path, grown: Path) -> None:
    found = only_json(teleflm("inspect", run, "--json"))
    assert (found["step"], found["tokens"], found["ramp"]) == (6, 384, 1.0)
    assert [event["operator"] for event in found["lineage"]] == ["init"]
    assert found["config"]["vocab_size"] == 424
    assert found["parameters_published"] is None
    child = only_json(teleflm("inspect", grown, "--json"))
    assert (child["step"], child["ramp"]) == (6, 0.0)
    growth = child["lineage"][-1]
    assert (growth["operator"], growth["step"]) == ("mask", 6)
    assert (growth["from"]["hidden_size"], growth["to"]["hidden_size"]) == (32, 40)
    assert "step 6: mask → hidden 40, 3 layers" in teleflm("inspect", grown).out


def test_verify_a_checkpoint(teleflm: Command, run: Path) -> None:
    found = only_json(teleflm("verify", run, "--json"))
    assert (found["whole"], found["problems"]) == (True, [])
    assert "whole, 3 files" in teleflm("verify", run).out


def test_verify_a_growth(teleflm: Command, run: Path, grown: Path) -> None:
    outcome = teleflm("verify", run, grown, "--json")
    found = only_json(outcome)
    assert found["exact"] is True
    assert found["function"]["dtype"] == "float64"
    assert found["function"]["max_relative_logit_error"] <= 1e-12
    assert found["trajectory"]["steps"] == 30
    assert found["trajectory"]["max_relative_loss_difference"] <= 1e-12
    assert outcome.err == ""


def test_a_certificate_that_fails(teleflm: Command, run: Path, grown: Path, tmp_path: Path) -> None:
    # A child of other weights: the same run one step earlier.
    outcome = teleflm("verify", run / "checkpoints" / "step-00000004", grown, "--json")
    found = only_json(outcome, code=1)
    assert found["exact"] is False
    assert "not grown from" in outcome.err
    assert outcome.err.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in outcome.err


def test_inspect_a_store(teleflm: Command, store: TokenStore) -> None:
    found = only_json(teleflm("data", "inspect", store.path, "--json"))
    assert set(found["domains"]) == {"chinese", "code", "english"}


def test_demo(teleflm: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def done(data: list[Path], out: Path, force: bool) -> Path:
        (out / "summary.json").write_text('{"title": "小",\n "seconds": 1}', encoding="utf-8")
        return out

    monkeypatch.setattr(story, "run_demo", done)
    assert only_json(teleflm("demo", "--out", tmp_path, "--json")) == {"title": "小", "seconds": 1}
    assert str(tmp_path / "report.html") in teleflm("demo", "--out", tmp_path).out


# --- exit codes


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "run the same command again"),
        (StoppedError(15, "saved at step 3"), 143, "stopped by signal 15; saved at step 3"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), 1, "No space left on device"),
        (OSError(errno.EIO, os.strerror(errno.EIO), "/x"), 1, "/x: Input/output error"),
        (NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), "/x"), 2, "/x: Not a dir"),
        (
            PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/x"),
            2,
            "/x: Permission denied",
        ),
    ],
)
def test_what_ends_a_command(
    teleflm: Command,
    store: TokenStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    code: int,
    message: str,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(loop, "train", fail)
    file = write_run(tmp_path / "run.yaml", run_fields(store.path, tmp_path / "run"))
    found = teleflm("train", file)
    assert (found.code, found.out) == (code, "")
    assert found.err.startswith("error: ")
    assert message in found.err


def test_a_fault_of_ours_keeps_its_traceback(
    teleflm: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("teleflm.cli.inspect._facts", fail)
    with pytest.raises(ZeroDivisionError):
        teleflm("inspect", "nano-52b")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left")])
def test_an_interrupted_store_is_out_of_sight_and_goes_on(
    teleflm: Command,
    corpus: Path,
    tokenizer_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    command = ("data", "prepare", "--tokenizer", tokenizer_dir, "--out", tmp_path / "s", corpus)
    with monkeypatch.context() as patch:
        patch.setattr(store_module, "write_whole", fail)
        found = teleflm(*command)
    assert found.code == (130 if isinstance(error, KeyboardInterrupt) else 1)
    assert "Traceback" not in found.err
    assert os.listdir(tmp_path) == [".s.partial"]
    assert teleflm(*command).code == 0
    assert os.listdir(tmp_path) == ["s"]


def test_a_run_from_the_command_line(teleflm: Command, store: TokenStore, tmp_path: Path) -> None:
    file = write_run(tmp_path / "run.yaml", run_fields(store.path, tmp_path / "elsewhere"))
    found = teleflm("train", file, f"run_dir={tmp_path / 'run'}", "training.steps=3", "seed=0x7")
    assert (found.code, found.out) == (0, f"{tmp_path / 'run'}\n")
    assert "step 3/3" in found.err
    assert not (tmp_path / "elsewhere").exists()
    again = teleflm("train", file, f"run_dir={tmp_path / 'run'}", "training.steps=5", "seed=7")
    assert again.code == 0
    assert "going on from step 3" in again.err


def test_waiting_threads_do_not_spin(teleflm: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    teleflm("--version")
    assert "GOMP_SPINCOUNT" not in os.environ  # the user's word counts
    monkeypatch.delenv("OMP_WAIT_POLICY")
    teleflm("--version")
    assert os.environ["GOMP_SPINCOUNT"] == "5000"


def test_many_ranks_are_for_training(
    teleflm: Command, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "0")
    refused = teleflm("inspect", str(run))
    assert refused.code == 2
    assert "torchrun starts train, sft, series, grow, verify, import" in refused.err
    assert "run teleflm inspect without it" in refused.err
    # What is wrong with the input is wrong for all alike: one says it.
    monkeypatch.setenv("RANK", "3")
    assert teleflm("inspect", str(run)).err == ""


HALF_LAUNCHED = [
    ({"WORLD_SIZE": ""}, "WORLD_SIZE is '', not a whole number; unset WORLD_SIZE"),
    ({"WORLD_SIZE": "two", "RANK": "0"}, "WORLD_SIZE is 'two', not a whole number"),
    ({"WORLD_SIZE": "2"}, "it has WORLD_SIZE = 2 and no RANK"),
    ({"WORLD_SIZE": "0"}, "it has WORLD_SIZE = 0 and no RANK"),
    ({"WORLD_SIZE": "2", "RANK": ""}, "RANK is '', not a whole number; unset RANK, WORLD_SIZE"),
    ({"RANK": "3"}, "it has RANK = 3 and no WORLD_SIZE; unset RANK"),
    ({"RANK": "-1"}, "RANK is '-1', not a whole number"),
    ({"RANK": "3", "WORLD_SIZE": "2"}, "it has RANK = 3 and WORLD_SIZE = 2"),
    ({"LOCAL_RANK": ""}, "LOCAL_RANK is '', not a whole number"),
]


@pytest.mark.parametrize(("variables", "told"), HALF_LAUNCHED)
def test_a_part_of_what_torchrun_sets(
    teleflm: Command,
    run: Path,
    store: TokenStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    told: str,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    file = write_run(tmp_path / "run.yaml", run_fields(store.path, tmp_path / "run"))
    for verb in ("train", "series"):
        code, out, err = teleflm(verb, file)
        assert (code, out) == (2, "")
        assert told in err and "or start it with torchrun" in err
        assert len(err.splitlines()) == 1
    assert not (tmp_path / "run").exists()
    # What one process does, it does.
    for arguments in (("inspect", run), ("verify", run), ("data", "inspect", store.path)):
        code, out, err = teleflm(*arguments)
        assert (code, err) == (0, "") and out
    assert teleflm("generate", run, "", "--max-new-tokens", 2).code == 0
    assert teleflm("export", run, tmp_path / "exported").code == 0
    assert teleflm("import", tmp_path / "exported", tmp_path / "imported").code == 0


def test_no_place_to_meet(
    teleflm: Command, store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    file = write_run(tmp_path / "run.yaml", run_fields(store.path, tmp_path / "run"))
    code, _, err = teleflm("train", file)
    assert (code, len(err.splitlines())) == (2, 1)
    assert "it has WORLD_SIZE = 2 and no MASTER_ADDR" in err


def test_one_process_by_torchrun_or_by_nobody(
    teleflm: Command, store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_run(
        tmp_path / "run.yaml", run_fields(store.path, tmp_path / "run", training={"steps": 1})
    )
    for variables in ({"WORLD_SIZE": "1"}, {"RANK": "0"}, {"WORLD_SIZE": "1", "RANK": "0"}):
        with monkeypatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            assert teleflm("train", file).code == 0


def test_a_number_on_this_machine_is_of_a_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    # Else it would choose the GPU.
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert launcher.local_rank() == 0
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert (launcher.local_rank(), launcher.rank(), launcher.count()) == (3, 3, 8)
    assert launcher.local_count() == 1
