"""The benchmarks run, agree on the work, and say when the answer is no."""

import json
import re
import time
from pathlib import Path

import pytest
import torch

from benchmarks import (
    attention,
    checkpoint,
    document_mask,
    dryrun,
    generate,
    lm_eval_parity,
    parallel,
    plan,
    ramp,
    train_step,
)
from benchmarks.contenders import HuggingFaceLlama, Ours, fresh_state, shape
from benchmarks.timing import Pairs, time_alternately
from teleflm.config.base import write_yaml
from teleflm.config.model import ModelConfig
from teleflm.config.run import Precision
from teleflm.planning import calibrate

TINY = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
SIZE = ["--sequence-length", "8", "--batch", "2", "--pairs", "3"]


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    """The YAML file of a tiny model."""
    write_yaml(tmp_path / "tiny.yaml", ModelConfig.model_validate(TINY))
    return str(tmp_path / "tiny.yaml")


def test_contenders_take_turns() -> None:
    turns: list[str] = []
    pairs = time_alternately(lambda: turns.append("a"), lambda: turns.append("b"), 3, warmup=1)
    assert turns == ["a", "b"] * 4
    assert len(pairs.ours) == len(pairs.theirs) == 3


def test_the_ratio_is_taken_pair_by_pair() -> None:
    # The machine was ten times slower in the second pair; the ratio does not see it.
    pairs = Pairs(ours=[1.0, 10.0, 1.0], theirs=[2.0, 20.0, 3.0])
    assert pairs.ratios == [2.0, 2.0, 3.0]
    assert pairs.ratio == 2.0


def test_the_cost_of_a_document_mask(tiny: str, capsys: pytest.CaptureFixture[str]) -> None:
    size = ["--shape", tiny, "--documents", "2", "5", *SIZE]
    assert document_mask.main([*size, "--at-most", "1e9"]) == 0
    assert "2 × 8 tokens in" in capsys.readouterr().out
    assert document_mask.main([*size, "--at-most", "1e-9"]) == 1
    starts = document_mask.documents(3, 50, 4, 9)
    begins = [(row == torch.arange(50)).nonzero().flatten() for row in starts]
    for row in begins:
        assert row[0] == 0 and ((row.diff() >= 4) & (row.diff() <= 9)).all()


def test_train_step_prints_one_json_object(tiny: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert train_step.main(["--shape", tiny, *SIZE, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    ours, theirs = result["sides"]
    assert (ours["name"], theirs["name"]) == ("teleflm", "transformers")
    assert ours["tokens_per_second"] > 0
    assert result["dtype"] == "bf16"
    assert result["ratio_min"] <= result["ratio"] <= result["ratio_max"]


def test_too_slow_is_exit_code_1(tiny: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert train_step.main(["--shape", tiny, *SIZE, "--at-least", "1e9"]) == 1
    said = capsys.readouterr()
    assert "too slow" in said.err
    assert "tokens/s" in said.out


def test_an_unknown_shape_is_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert train_step.main(["--shape", "nano-52"]) == 2
    assert "did you mean 'nano-52b'?" in capsys.readouterr().err


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_both_sides_do_the_same_work(tiny: str, dtype: Precision) -> None:
    """Equal losses on equal weights: nobody is timed on less, micro-batches included."""
    state = fresh_state(shape(tiny, 64, 8))
    batch = torch.randint(64, (4, 9), generator=torch.Generator().manual_seed(2))
    within = {"bf16": 2e-3, "fp32": 1e-6}[dtype]
    # Only the first losses: afterwards µP has given our matrices another learning rate.
    for mine, others in ((2, 4), (4, 2)):
        theirs = HuggingFaceLlama(state, batch, others, dtype=dtype)()
        assert Ours(state, batch, mine, dtype=dtype)() == pytest.approx(theirs, rel=within)


def test_other_work_is_refused(tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HuggingFaceLlama, "__call__", lambda self: 1.0)
    with pytest.raises(RuntimeError, match="not the same work"):
        train_step.main(["--shape", tiny, *SIZE])


WRITE = ["--prompt", "3", "--new-tokens", "5", "--rounds", "3", "--megabytes", "1"]


def test_generate_prints_one_json_object(tiny: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert generate.main(["--shape", tiny, *WRITE, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    ours, theirs = result["sides"]
    assert (ours["name"], theirs["name"]) == ("teleflm", "transformers")
    # Two layers of 4 · 16² + 3 · 16 · 24, five gains of 16, and a head of 64 · 16, in fp32.
    assert result["weight_bytes"] == 4 * (2 * (4 * 16**2 + 3 * 16 * 24) + 5 * 16 + 64 * 16)
    assert ours["bandwidth_share"] > 0
    assert result["ratio_min"] <= result["ratio"] <= result["ratio_max"]


@pytest.mark.parametrize("what", ["int8", "batch", "prefill"])
def test_other_ways_of_writing_are_compared(
    tiny: str, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    command = ["--of", what, "--shape", tiny, *WRITE, "--rows", "4"]
    assert generate.main([*command, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["ratio_min"] <= result["ratio"] <= result["ratio_max"]
    assert (result["share"] is None) == (what != "prefill")
    assert generate.main([*command, "--at-least", "1e9"]) == 1
    assert "times the tokens per second" in capsys.readouterr().err


def test_slow_text_is_exit_code_1(tiny: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert generate.main(["--shape", tiny, *WRITE, "--at-least", "1e9", "--share", "1e9"]) == 1
    said = capsys.readouterr()
    assert "times the tokens per second" in said.err
    assert "of what memory gives" in said.err
    assert "tokens/s" in said.out


def test_other_text_is_refused(tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "generate", lambda *arguments, **named: [1, 2, 3, 4, 5])
    with pytest.raises(RuntimeError, match="not the same work"):
        generate.main(["--shape", tiny, *WRITE])


def test_ramp_and_attention_run(
    tiny: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    child = ModelConfig.model_validate({**TINY, "hidden_size": 24, "num_attention_heads": 3})
    write_yaml(tmp_path / "child.yaml", child)
    ramp.main(["--parent", tiny, "--child", str(tmp_path / "child.yaml"), *SIZE])
    monkeypatch.setattr(attention, "SHAPES", ((1, 1, 4, 4),))
    attention.main(pairs=2)
    assert "in the ramp" in capsys.readouterr().out


@pytest.mark.slow
def test_checkpoint_measures_one_rank_and_two(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # So little says nothing of speed, and its verdict neither.
    checkpoint.main(["--folder", str(tmp_path), "--megabytes", "60", "--pairs", "1"])
    said = capsys.readouterr().out
    for row in ("1 rank, ", "2 ranks, ", "save ", "load "):
        assert row in said
    # The copy, and with PyTorch 2.11 what writing it takes.
    copies = re.findall(r"memory for asynchronous save: (\d\.\d+)", said)
    assert copies and all(1.0 <= float(copy) <= 1.1 for copy in copies)
    assert list(tmp_path.iterdir()) == []


def test_one_device_runs_on_a_cpu_too(tiny: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["--gpu", "--shape", tiny, "--sequence-length", "8", "--batch", "2", "--steps", "1"]
    line += ["--micro-batches", "1", "2", "--modes", "eager"]
    assert parallel.main([*line, "--goal", "0"]) == 0
    said = capsys.readouterr().out
    assert said.count("teleflm") == said.count("transformers") == 2
    assert parallel.main([*line, "--goal", "1e9"]) == 1
    assert "not reached" in capsys.readouterr().out


def test_one_device_goes_on_where_one_side_does_not_fit(
    tiny: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: HuggingFaceLlama) -> float:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(HuggingFaceLlama, "__call__", full)
    line = ["--gpu", "--shape", tiny, "--sequence-length", "8", "--batch", "2", "--steps", "1"]
    parallel.main([*line, "--micro-batches", "2", "--modes", "eager", "--goal", "0"])
    said = capsys.readouterr().out
    assert "no memory" in said and said.count("teleflm") == 1


def test_waits_are_counted_and_the_rest_is_not() -> None:
    waits = parallel.Waits()
    with waits.counted():
        time.sleep(0.02)
        assert waits.seconds == 0.0
        torch.ops._c10d_functional.wait_tensor(torch.ones(1))
    counted = waits.seconds
    assert 0.0 < counted < 0.02
    torch.ops._c10d_functional.wait_tensor(torch.ones(1))
    assert waits.seconds == counted


@pytest.mark.slow
def test_each_axis_is_timed_beside_one_process(capsys: pytest.CaptureFixture[str]) -> None:
    parallel.main(["--ranks", "2", "--length", "16", "--pairs", "1"])
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    found = {row[0]: row for row in rows if row[0] in parallel.AXES}
    assert set(found) == set(parallel.AXES)
    assert all(0 < int(row[-1].rstrip("%")) < 100 for row in found.values())


def test_a_plan_is_compared_with_real_steps(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(calibrate, "_SECONDS", 0.0)
    monkeypatch.setattr(plan, "_STEPS", 2)
    sections = {
        "model": {"preset": "nano-52b", "vocab_size": 512},
        "data": {"sequence_length": 16},
    }
    for runs in ("_CPU", "_GPU"):
        monkeypatch.setattr(plan, runs, {"tiny": sections})
    assert plan.main(["--pairs", "1", "--json", "--within", "1e9"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["name"] == "tiny" and row["planned"] > 0 and row["trained"] > 0
    assert row["ratio"] == pytest.approx(row["planned"] / row["trained"])
    monkeypatch.setattr(plan, "measure", lambda *_: iter([plan.Row(**row)]))
    assert plan.main(["--pairs", "1", "--within", "1e-9"]) == 1
    assert "not within" in capsys.readouterr().err


@pytest.mark.parametrize(("peak", "code"), [(7, 0), (8, 1)])
def test_dryrun_says_which_figures_differ(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], peak: int, code: int
) -> None:
    def facts(source: Path, command: list[str]) -> dict[str, int]:
        assert command[-2:] == ["--rank", "453"]
        return {"rank": 453, "peak": peak if source == Path("before") else 7}

    monkeypatch.setattr(dryrun, "facts", facts)
    assert dryrun.main(["--against", "before"]) == code
    assert ("peak differs: 7 and before 8" in capsys.readouterr().out) == bool(code)


def test_answers_that_differ_are_counted() -> None:
    found = [
        lm_eval_parity.differences([(-50.0, True), (-0.5, False)], [(-50.5, True), (-0.25, True)]),
        lm_eval_parity.differences([-9.0], [-10.0]),
        lm_eval_parity.differences(["a", "b"], ["a", "c"]),
    ]
    assert [(each["largest"], each["others"]) for each in found] == [(0.25, 1), (0.1, 0), (0.0, 1)]
