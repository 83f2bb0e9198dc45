"""Layouts are resolved as asked for, and refused by name with the nearest that fit."""

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teleflm.config.run import RunConfig, resolve_run
from teleflm.errors import ConfigError
from teleflm.parallel.choose import layout_for
from teleflm.parallel.layout import Layout, micro_batch_of, micro_batches_fit
from tests.tiny import FIELDS

WIDE = {**FIELDS, "num_hidden_layers": 8, "num_attention_heads": 8, "num_key_value_heads": 4}


def run(**sections: Any) -> RunConfig:
    """4 groups of heads, FFN 48, 8 layers, 16 positions, batches of 16."""
    sections.setdefault("model", WIDE)
    fields = {"run_dir": "run", "data": {"path": "store", "sequence_length": 16}, **sections}
    fields["training"] = {"steps": 1, "global_batch": 16, **sections.get("training", {})}
    return resolve_run(fields, "RUN.yaml")


def layout(ranks: int, **parallel: Any) -> Layout:
    return layout_for(run(parallel=parallel), ranks)


def test_one_rank_needs_no_keys() -> None:
    assert layout_for(run(), 1) == Layout()


def test_dp_is_what_the_others_leave() -> None:
    assert layout(8, tp=2, pp=2) == Layout(pp=2, dp_shard=2, tp=2)
    assert layout(8, tp=2, pp=2, dp=2) == Layout(pp=2, dp_shard=2, tp=2)
    assert layout(8) == Layout(dp_shard=8)


@pytest.mark.parametrize(
    "keys", [{"dp_replicate": 2}, {"dp_shard": 4}, {"dp_replicate": 2, "dp_shard": 4, "dp": 8}]
)
def test_of_replicate_and_shard_the_one_follows_the_other(keys: dict[str, int]) -> None:
    assert layout(16, tp=2, **keys) == Layout(dp_replicate=2, dp_shard=4, tp=2)


def test_stages_on_each_rank() -> None:
    assert layout(2, pp=2).stages_per_rank == 1
    assert layout(2, pp=2, schedule="interleaved").stages_per_rank == 2
    assert layout(2, pp=2, schedule="zero_bubble", stages_per_rank=3).stages_per_rank == 3
    # Without a pipeline there is one stage, whatever its schedule would be.
    assert layout(2, schedule="interleaved", stages_per_rank=3).stages_per_rank == 1


def test_what_a_run_grows_to_is_laid_out() -> None:
    to = {"hidden_size": 96, "num_attention_heads": 12, "num_key_value_heads": 6}
    run_of = {"growth": {"to": {**to, "num_hidden_layers": 12}}}
    assert layout_for(run(**run_of, parallel={"tp": 2, "pp": 4}), 8) == Layout(pp=4, tp=2)
    with pytest.raises(ConfigError, match=r"does not divide growth\.to\.num_key_value_heads 6;"):
        layout_for(run(**run_of, parallel={"tp": 4}), 4)


MISFITS: dict[str, tuple[int, dict[str, Any], str]] = {
    "ranks": (
        8,
        {"parallel": {"tp": 3}},
        "parallel.tp 3 × parallel.pp 1 does not divide 8 ranks; the nearest layouts of 8 ranks "
        "that fit: tp 4 · pp 1 · dp 2; tp 2 · pp 1 · dp 4; tp 4 · pp 2 · dp 1",
    ),
    "dp": (
        8,
        {"parallel": {"tp": 2, "pp": 2, "dp": 4}},
        "parallel.dp 4: tp 2 × pp 2 leaves dp 2 of 8 ranks; the nearest layouts of 8 ranks that "
        "fit: tp 1 · pp 2 · dp 4; tp 2 · pp 1 · dp 4; tp 2 · pp 2 · dp 2",
    ),
    "dp_replicate": (
        8,
        {"parallel": {"tp": 2, "dp_replicate": 3}},
        "parallel.dp_replicate 3: tp 2 × pp 1 leaves dp 4 of 8 ranks; the nearest layouts of 8 "
        "ranks that fit: tp 2 · pp 1 · dp 4 × 1; tp 2 · pp 1 · dp 2 × 2; tp 1 · pp 1 · dp 4 × 2",
    ),
    "dp_shard": (
        2,
        {"parallel": {"dp_replicate": 1, "dp_shard": 4}},
        "parallel.dp_replicate 1 and parallel.dp_shard 4: tp 1 × pp 1 leaves dp 2 of 2 ranks; the "
        "nearest layouts of 2 ranks that fit: tp 1 · pp 1 · dp 2; ",
    ),
    "heads": (
        8,
        {"parallel": {"tp": 8}},
        "parallel.tp 8 does not divide model.num_key_value_heads 4; the nearest layouts of 8 ranks "
        "that fit: tp 4 · pp 1 · dp 2; ",
    ),
    "ffn": (
        4,
        {"model": {**WIDE, "intermediate_size": 50}, "parallel": {"tp": 4}},
        "parallel.tp 4 does not divide model.intermediate_size 50; the nearest layouts of 4 ranks "
        "that fit: tp 2 · pp 1 · dp 2; ",
    ),
    "sequence": (
        4,
        {"data": {"path": "store", "sequence_length": 18}, "parallel": {"tp": 4}},
        "parallel.tp 4 does not divide data.sequence_length 18; ",
    ),
    "layers": (
        8,
        {"parallel": {"pp": 8, "schedule": "interleaved"}, "training": {"global_batch": 64}},
        "parallel.pp 8 with 2 stages on each rank makes 16 stages, but model.num_hidden_layers is "
        "8; the nearest layouts of 8 ranks that fit: tp 1 · pp 4 · dp 2; ",
    ),
    "batch": (
        3,
        {},
        "training.global_batch 16 does not divide by dp 3; the nearest layouts of 3 ranks that "
        "fit: tp 1 · pp 3 · dp 1",
    ),
    "micro-batch": (
        8,
        {"training": {"micro_batch": 4}},
        "training.micro_batch 4 does not divide the 2 sequences that training.global_batch 16 "
        "leaves to each of dp 8; the nearest layouts of 8 ranks that fit: tp 2 · pp 1 · dp 4; ",
    ),
    "too few micro-batches": (
        8,
        {"parallel": {"pp": 8}, "training": {"micro_batch": 4}},
        "parallel.pp 8 needs as many micro-batches, but the 16 sequences that "
        "training.global_batch 16 leaves to each of dp 1 make 4; the nearest layouts of 8 ranks "
        "that fit: tp 2 · pp 4 · dp 1; ",
    ),
    "too small a batch": (
        8,
        {"parallel": {"pp": 4}, "training": {"global_batch": 4}},
        "parallel.pp 4 needs as many micro-batches, but the 2 sequences that "
        "training.global_batch 4 leaves to each of dp 2 make 2; the nearest layouts of 8 ranks "
        "that fit: tp 2 · pp 4 · dp 1; tp 2 · pp 2 · dp 2; tp 2 · pp 1 · dp 4",
    ),
    "rounds": (
        4,
        {"parallel": {"pp": 4, "schedule": "interleaved"}, "training": {"global_batch": 11}},
        "parallel.schedule interleaved deals micro-batches out in 2 equal rounds to parallel.pp 4, "
        "but the 11 sequences that training.global_batch 11 leaves to each of dp 1 make 11; the ",
    ),
    "zero-bubble, compiled": (
        4,
        {"parallel": {"pp": 4, "schedule": "zero_bubble"}, "training": {"compile": True}},
        "parallel.schedule zero_bubble goes backward through a block in two parts, which PyTorch "
        "cannot do with training.compile true; leave one of them out; the nearest layouts of 4 "
        "ranks that fit: tp 1 · pp 1 · dp 4; tp 2 · pp 1 · dp 2; tp 4 · pp 1 · dp 1",
    ),
    "zero-bubble, selective": (
        2,
        {
            "parallel": {
                "pp": 2,
                "schedule": "zero_bubble",
                "activation_checkpointing": "selective",
            }
        },
        "cannot do with parallel.activation_checkpointing selective; leave one of them out; ",
    ),
    "zero-bubble, full": (
        2,
        {"parallel": {"pp": 2, "schedule": "zero_bubble", "activation_checkpointing": "full"}},
        "PyTorch computes it again several times with parallel.activation_checkpointing full; "
        "give none, or the schedule 1f1b or interleaved; the nearest layouts of 2 ranks that fit: ",
    ),
    "nothing fits": (
        7,
        {"model": {**WIDE, "num_hidden_layers": 4}},
        "training.global_batch 16 does not divide by dp 7; no layout of 7 ranks fits: change "
        "their number, the model or the batch",
    ),
    # What no layout mends names its own way out.
    "1f1b": (
        2,
        {"parallel": {"pp": 2, "stages_per_rank": 2}},
        "parallel.stages_per_rank 2: the schedule 1f1b has one stage on each rank; leave it out, "
        "or give parallel.schedule interleaved or zero_bubble",
    ),
    "gather in fp64": (
        1,
        {"parallel": {"gather_dtype": "fp32"}, "training": {"dtype": "fp64"}},
        "parallel.gather_dtype fp32 would round what training.dtype fp64 computes; leave it out",
    ),
    "reduce in fp64": (
        1,
        {"parallel": {"reduce_dtype": "bf16"}, "training": {"dtype": "fp64"}},
        "parallel.reduce_dtype bf16 would round what training.dtype fp64 computes; leave it out",
    ),
    "gather in bf16": (
        1,
        {"parallel": {"gather_dtype": "bf16"}, "training": {"dtype": "fp32"}},
        "parallel.gather_dtype bf16 hands bf16 weights to a computation in training.dtype fp32; "
        "leave it out, or train in bf16",
    ),
}


@pytest.mark.parametrize("case", MISFITS)
def test_what_does_not_fit_is_refused_by_name(case: str) -> None:
    ranks, sections, message = MISFITS[case]
    with pytest.raises(ConfigError) as error:
        layout_for(run(**sections), ranks)
    assert message in str(error.value)


def test_the_guide_shows_the_error_as_it_is() -> None:
    guide = (Path(__file__).parents[2] / "docs/parallel.md").read_text(encoding="utf-8")
    assert f"error: {MISFITS['ranks'][2]}" in " ".join(guide.split())


SIZES = st.sampled_from([1, 2, 3, 4, 5, 6, 8, 12])
AXES = st.none() | SIZES


@given(
    ranks=st.integers(1, 48),
    keys=st.fixed_dictionaries(
        {
            "tp": SIZES,
            "pp": SIZES,
            "dp": AXES,
            "dp_replicate": AXES,
            "dp_shard": AXES,
            "schedule": st.sampled_from(["1f1b", "interleaved", "zero_bubble"]),
        }
    ),
    layers=st.integers(1, 12),
    batch=st.integers(1, 48),
)
def test_a_run_is_laid_out_as_asked_or_told_what_fits(
    ranks: int, keys: dict[str, Any], layers: int, batch: int
) -> None:
    sections: dict[str, Any] = {
        "model": {**WIDE, "num_hidden_layers": layers},
        "training": {"global_batch": batch},
    }
    try:
        made = layout_for(run(**sections, parallel=keys), ranks)
    except ConfigError as error:
        for nearest in re.findall(r"tp (\d+) · pp (\d+) · dp (\d+)(?: × (\d+))?", str(error)):
            tp, pp, *dp = (int(size) for size in nearest if size)
            copies, shard = dp if len(dp) == 2 else (1, dp[0])
            sizes = {"tp": tp, "pp": pp, "dp": copies * shard, "dp_replicate": copies}
            typed = {**keys, **sizes, "dp_shard": shard}
            assert layout_for(run(**sections, parallel=typed), ranks).ranks == ranks
        return
    assert made.ranks == ranks
    for axis in ("tp", "pp", "dp", "dp_replicate", "dp_shard"):
        assert keys[axis] in (None, getattr(made, axis))
    share, training = batch // made.dp, run(**sections).training
    count, rest = divmod(share, micro_batch_of(training, made, keys["schedule"]))
    assert rest == 0
    assert made.pp == 1 or micro_batches_fit(count, made, keys["schedule"])
