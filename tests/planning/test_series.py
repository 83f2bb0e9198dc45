"""The plan of a series: sums by hand, break-even by its definition, and each warning."""

from dataclasses import astuple
from pathlib import Path
from typing import Any

import pytest
import yaml

from teleflm.config.cluster import load_cluster
from teleflm.errors import ConfigError, GrowthError
from teleflm.model.flops import flops_per_token
from teleflm.planning.plan import plan
from teleflm.planning.series import SeriesPlan, is_series, plan_series, planned_series

H100 = load_cluster("h100-8").model_copy(update={"price_per_hour": 2.0})
SMALL = {
    "vocab_size": 64,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
}
# 655,360 matrix entries in blocks, and 64 · 128 twice, and gains: 672,896 in all.
PARAMETERS = 672_896
TOKENS = 16 * 32
DEEPER = {"to": {"num_hidden_layers": 8}, "ramp": 5}


def written(folder: Path, *stages: dict[str, Any]) -> Path:
    """A SERIES.yaml with these stages' keys; a step reads 512 tokens."""
    run = {
        "data": {"path": "nowhere", "sequence_length": 32},
        "training": {"steps": 10, "global_batch": 16},
    }
    named = [{"name": f"s{number}", **stage} for number, stage in enumerate(stages)]
    file = folder / "series.yaml"
    file.write_text(yaml.safe_dump({"series_dir": "s", "run": run, "stages": named}))
    return file


def planned(folder: Path, *stages: dict[str, Any]) -> SeriesPlan:
    return plan_series(planned_series(written(folder, *stages)), H100)


def first(**training: int) -> dict[str, Any]:
    return {"model": SMALL, "training": training}


def then(growth: dict[str, Any], **training: int) -> dict[str, Any]:
    return {"growth": growth, "training": training}


def test_the_sums(tmp_path: Path) -> None:
    found = planned(tmp_path, first(steps=30), then(DEEPER, steps=6, global_batch=32))
    runs = planned_series(tmp_path / "series.yaml")
    small, large = (plan(run, H100) for run in runs.values())
    assert [stage.plan for stage in found.stages] == [small, large]
    assert small.parameters == PARAMETERS
    a, b = 30 * TOKENS, 6 * 2 * TOKENS
    each = [flops_per_token(p.config.final_model, 32) for p in (small, large)]
    days = 30 * small.time.seconds / 86_400 + 6 * large.time.seconds / 86_400
    assert found.total.tokens == a + b
    assert found.total.flops == a * each[0] + b * each[1]
    assert found.total.days == pytest.approx(days)
    assert found.total.gpu_hours == pytest.approx(days * 24 * 8)
    assert found.total.cost == pytest.approx(days * 24 * 8 * 2.0)
    # All 21,504 tokens are 21 steps of the last stage's 1,024.
    assert found.scratch.tokens == pytest.approx(a + b)
    assert found.scratch.flops == pytest.approx((a + b) * each[1])
    assert found.scratch.days == pytest.approx(21 * large.time.seconds / 86_400)
    assert found.scratch.gpu_hours == pytest.approx(found.scratch.days * 24 * 8)
    assert found.scratch.cost == pytest.approx(found.scratch.gpu_hours * 2.0)


def test_at_break_even_both_cost_the_same(tmp_path: Path) -> None:
    stages = [
        {**first(steps=30), "parallel": {"dp": 4}},  # on half of the machine
        then(DEEPER, steps=7),
        then({"to": {"hidden_size": 192, "num_attention_heads": 12}, "ramp": 5}, steps=8),
    ]
    found = planned(tmp_path, *stages)
    even, last = found.break_even, found.stages[-1]
    assert even is not None
    assert even.earlier_tokens == 37 * TOKENS
    # The last model, from scratch, on that many tokens.
    hours = even.tokens / TOKENS * last.plan.time.seconds / 3600 * 8
    assert hours == pytest.approx(found.total.gpu_hours)
    # Tokens at that worth, and the last stage's own, are what it reads.
    worth = 8 * TOKENS + even.earlier_token_worth * even.earlier_tokens
    assert worth == pytest.approx(even.tokens)
    assert 0 < even.earlier_token_worth < 1


def test_a_series_that_does_not_grow_has_no_break_even(tmp_path: Path) -> None:
    found = planned(tmp_path, first(steps=3))
    assert found.break_even is None and found.warnings == []
    assert astuple(found.scratch) == pytest.approx(astuple(found.total))


# Twice the layers are 1.98 times the parameters; 2,600 steps read a token for each of them.
QUIET = (first(steps=2600), then(DEEPER, steps=2600))


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        (QUIET, []),
        # Nine layers for four.
        (
            (first(steps=2600), then({"to": {"num_hidden_layers": 9}, "ramp": 5}, steps=3000)),
            ["s0 → s1: 2.2 times the parameters"],
        ),
        # 20 tokens a parameter are 26,285.0 steps.
        ((first(steps=26_285), QUIET[1]), []),
        ((first(steps=26_286), QUIET[1]), ["s0 → s1: it grows after 20.0 tokens a parameter"]),
        # All that was read before counts: 60,000 steps for 1,329,280 parameters.
        (
            (first(steps=26_000), then(DEEPER, steps=34_000), then(DEEPER, steps=9000)),
            ["s1 → s2: it grows after 23.1 tokens a parameter"],
        ),
        ((first(steps=2600), then({**DEEPER, "ramp": 2600}, steps=2600)), []),
        (
            (first(steps=2600), then({**DEEPER, "ramp": 2601}, steps=2600)),
            ["s1: growth.ramp 2,601 is longer than its 2,600 steps"],
        ),
        # Nothing that a ramp would open.
        ((first(steps=2600), then({**DEEPER, "ramp": 2601, "depth": "zero"}, steps=2600)), []),
        # 1,329,280 parameters are 2,596.25 steps.
        ((first(steps=2600), then(DEEPER, steps=2597)), []),
        ((first(steps=2600), then(DEEPER, steps=2596)), ["s1: reads 1 tokens a parameter"]),
        # A first stage may be short.
        ((first(steps=5), then(DEEPER, steps=2600)), []),
    ],
)
def test_warnings(tmp_path: Path, stages: tuple[dict[str, Any], ...], words: list[str]) -> None:
    found = planned(tmp_path, *stages).warnings
    assert len(found) == len(words)
    assert all(each.startswith(start) for each, start in zip(found, words, strict=True)), found


def test_every_stage_is_searched(tmp_path: Path) -> None:
    # Each asks for a slow layout: all in tensor parallelism.
    slow = {"parallel": {"tp": 8}}
    runs = planned_series(written(tmp_path, {**first(), **slow}, {**then(DEEPER), **slow}))
    asked, best = plan_series(runs, H100), plan_series(runs, H100, searched=True)
    for one, other in zip(asked.stages, best.stages, strict=True):
        assert one.plan.layout.tp == 8 and other.plan.layout.tp == 1
        assert other.plan.time.seconds < one.plan.time.seconds
    # From scratch on the layout of the last stage, whichever that is.
    steps = best.total.tokens / TOKENS
    assert best.scratch.days == pytest.approx(steps * best.stages[-1].plan.time.seconds / 86_400)


def test_overrides_are_of_every_stage(tmp_path: Path) -> None:
    file = written(tmp_path, first(), then(DEEPER))
    runs = planned_series(file, ["training.global_batch=32"])
    assert [run.training.global_batch for run in runs.values()] == [32, 32]


def test_what_cannot_be_names_its_stage(tmp_path: Path) -> None:
    with pytest.raises(GrowthError, match=r"series\.yaml: stage s1: .*hidden_size"):
        planned_series(written(tmp_path, first(), then({"to": {"hidden_size": 64}})))
    with pytest.raises(ConfigError, match=r"series\.yaml: stage s1: unknown key 'trainig'"):
        planned_series(written(tmp_path, first(), {**then(DEEPER), "trainig": {}}))
    runs = planned_series(written(tmp_path, first(), {**then(DEEPER), "parallel": {"tp": 3}}))
    with pytest.raises(ConfigError, match=r"stage s1: parallel\.tp 3"):
        plan_series(runs, H100)


def test_a_series_is_a_file_with_stages(tmp_path: Path) -> None:
    assert is_series(str(written(tmp_path, first())))
    (tmp_path / "run.yaml").write_text("model: nano-52b")
    assert not is_series(str(tmp_path / "run.yaml"))
    assert not is_series("nano-52b") and not is_series(str(tmp_path))
