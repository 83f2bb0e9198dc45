"""`teleflm dryrun` as a user has it."""

import json
from pathlib import Path

import pytest

from tests.conftest import Command

RUN = """
run_dir: run
model: {preset: nano-52b, num_hidden_layers: 2}
data: {path: nowhere, sequence_length: 32}
training: {steps: 1, global_batch: 4}
"""


@pytest.fixture
def run_yaml(tmp_path: Path) -> str:
    path = tmp_path / "run.yaml"
    path.write_text(RUN, encoding="utf-8")
    return str(path)


def test_a_rank_is_told(teleflm: Command, run_yaml: str) -> None:
    done = teleflm("dryrun", run_yaml, "--rank", "0", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    memory = found["memory_bytes"]
    assert found["stage_layers"] == [0, 1] and found["collectives"] == {}
    assert memory["parameters"] == 4 * found["parameters_local"] == memory["optimizer"] // 2
    kept = sum(memory[kind] for kind in ("parameters", "gradients", "optimizer"))
    assert memory["peak"] == kept + memory["activations"]
    assert found["flops"] == sum(found["flops_by_operator"].values()) > 0
    lines = teleflm("dryrun", run_yaml, "--rank", "0").out.splitlines()
    assert lines[0] == "rank 0 of 1: tp 1 · pp 1 · dp 1; layers 0 to 1"
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--world-size", "8", "--rank", "8", "parallel.tp=4"), "rank 8: the 8 ranks are 0 to 7"),
        (("--world-size", "8", "parallel.tp=3"), "does not divide 8 ranks"),
        (("--world-size", "4", "parallel.pp=4"), "num_hidden_layers is 2"),
    ],
)
def test_what_cannot_be_is_named(
    teleflm: Command, run_yaml: str, arguments: tuple[str, ...], words: str
) -> None:
    done = teleflm("dryrun", run_yaml, *arguments)
    assert done.code == 2 and words in done.err
