"""A pipeline's memory follows the micro-batches in flight, not those of the step."""

from typing import Any

import pytest

from teleflm.parallel.in_flight import LETS_GO
from tests.distributed.stepping import evaluation_peak, real_step
from tests.distributed.test_dryrun import MODEL, run_of
from tests.distributed.world import World

# What goes from stage to stage, (S, D) in fp32, and a row of the batch, S + 1 token ids.
STREAM = 64 * MODEL["hidden_size"] * 4
ROW = 65 * 8
# How many stages a rank has.
STAGES = {"1f1b": 1, "interleaved": 2, "zero_bubble": 2}


def run_with(schedule: str, micro_batches: int) -> dict[str, Any]:
    """With enough of them that the pipeline is full."""
    data = run_of({"pp": 4, "schedule": schedule})
    data["training"]["global_batch"] = 2 * micro_batches
    return data


def sends(schedule: str, rank: int) -> tuple[int, int]:
    """To how many stages those of a rank send activations, and gradients."""
    at = rank // 2
    return STAGES[schedule] - (at == 3), STAGES[schedule] - (at == 0)


@pytest.mark.parametrize("schedule", STAGES)
def test_a_step(eight: World, schedule: str) -> None:
    few, many = (eight.run(real_step, run_with(schedule, count)) for count in (12, 20))
    for rank, (before, after) in enumerate(zip(few, many, strict=True)):
        # PyTorch before 2.15 waits for what these schedules send at the step's end.
        kept = 0 if LETS_GO or schedule == "1f1b" else sum(sends(schedule, rank)) * STREAM
        assert after["peak"] - before["peak"] == pytest.approx(8 * (ROW + kept), abs=STREAM)


@pytest.mark.parametrize("schedule", STAGES)
def test_an_evaluation(eight: World, schedule: str) -> None:
    few, many = (eight.run(evaluation_peak, run_with(schedule, count)) for count in (12, 20))
    for rank, (before, after) in enumerate(zip(few, many, strict=True)):
        kept = 0 if LETS_GO or schedule == "1f1b" else sends(schedule, rank)[0] * STREAM
        # The batch, its padding, and without that.
        assert after - before == pytest.approx(8 * (3 * ROW + kept), abs=2 * STREAM)
