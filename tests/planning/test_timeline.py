"""The pipeline's timeline: PyTorch's order, played; and the closed form of its bubble."""

from itertools import pairwise, product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.pipelining.schedules import Schedule1F1B

from teleflm.config.cluster import load_cluster
from teleflm.config.run import PipelineSchedule
from teleflm.parallel.layout import Layout, micro_batches_fit
from teleflm.planning.plan import Plan, plan
from teleflm.planning.run import planned_run
from teleflm.planning.time import bubble_of
from teleflm.planning.timeline import (
    Action,
    Kind,
    Timeline,
    order_of,
    play,
    seconds_of,
    timeline,
)

THIRDS: dict[Kind, float] = {"forward": 1, "backward": 2, "input": 1, "weight": 1}
SCHEDULES: list[tuple[PipelineSchedule, int]] = [
    ("1f1b", 1),
    ("interleaved", 2),
    ("interleaved", 3),
    ("zero_bubble", 1),
    ("zero_bubble", 2),
]
SHAPES = [
    (kind, Layout(pp=pp, stages_per_rank=stages), count)
    for (kind, stages), pp in product(SCHEDULES, (2, 4, 8))
    for count in (pp, pp + 1, 2 * pp, 5 * pp)
    if micro_batches_fit(count, Layout(pp=pp), kind)
]


def played(
    kind: PipelineSchedule, layout: Layout, count: int, seconds: dict[Kind, float]
) -> Timeline:
    return play(order_of(kind, layout, count), layout, [seconds] * layout.pp)


@pytest.mark.parametrize(("kind", "layout", "count"), SHAPES)
def test_the_bubble_is_that_of_the_closed_form(
    kind: PipelineSchedule, layout: Layout, count: int
) -> None:
    """To the last digit, for every rank, where the three products of a matrix take as long."""
    found = played(kind, layout, count, THIRDS)
    idle = bubble_of(layout, kind) / count
    assert found.idle == pytest.approx([idle / (1 + idle)] * layout.pp)
    assert found.seconds == pytest.approx(3 * count * (1 + idle))


@pytest.mark.parametrize(("kind", "layout", "count"), SHAPES)
def test_each_pass_happens_once(kind: PipelineSchedule, layout: Layout, count: int) -> None:
    passes = ["forward", "input", "weight"] if kind == "zero_bubble" else ["forward", "backward"]
    for rank, actions in enumerate(order_of(kind, layout, count)):
        stages = range(rank, layout.stages, layout.pp)
        wanted = product(passes, stages, range(count))
        assert sorted((a.kind, a.stage, a.micro_batch) for a in actions) == sorted(wanted)


class Recorded:
    """A pipeline stage that only writes down what the schedule has it do."""

    has_backward = is_first = True
    is_last = False

    def __init__(self, index: int, stages: int) -> None:
        self.stage_index, self.num_stages = index, stages
        self.actions: list[Action] = []

    def __getattr__(self, name: str) -> Any:
        # What it sends and receives is nothing.
        return lambda *_, **__: []

    def forward_one_chunk(self, index: int, *_: object, **__: object) -> torch.Tensor:
        self.actions.append(Action("forward", self.stage_index, index))
        return torch.zeros(1)

    def backward_one_chunk(self, index: int, **_: object) -> None:
        self.actions.append(Action("backward", self.stage_index, index))


@pytest.mark.parametrize("count", [4, 5, 11])
def test_1f1b_is_what_pytorch_does_and_not_what_it_says(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its order counts the last rank's micro-batches from 1 on, its step does not."""
    monkeypatch.setattr(Schedule1F1B, "_initialize_stage", lambda *_: None)
    monkeypatch.setattr(Schedule1F1B, "_check_inputs", lambda *_: ([()] * count, [{}] * count))
    for rank, actions in enumerate(order_of("1f1b", Layout(pp=4), count)):
        stage: Any = Recorded(rank, 4)
        Schedule1F1B(stage, count)._step_microbatches()
        assert actions == stage.actions


def planned(*overrides: str) -> Plan:
    path = Path(__file__).parents[2] / "examples" / "tele-flm-1t.yaml"
    return plan(planned_run(path, overrides), load_cluster("a800-112x8"))


def test_a_pass_takes_its_share_of_what_the_plan_says() -> None:
    found = planned()
    time, count = found.time, found.largest.micro_batches
    each = [seconds_of(found, rank) for rank in range(28)]
    busiest = max(seconds["forward"] + seconds["backward"] for seconds in each)
    assert count * busiest == pytest.approx(time.compute + time.tensor + time.pipeline)
    for seconds in each:
        assert seconds["backward"] == pytest.approx(seconds["input"] + seconds["weight"])
        # All of the forward pass again but its last product.
        assert 2.6 < seconds["backward"] / seconds["forward"] < 3
    none = seconds_of(planned("parallel.activation_checkpointing=none"), 13)
    assert none["backward"] == pytest.approx(2 * none["forward"])
    assert none["input"] == pytest.approx(none["weight"])


@pytest.mark.parametrize("kind", ["1f1b", "interleaved", "zero_bubble"])
def test_a_plan_is_played(kind: str) -> None:
    found = planned(f"parallel.schedule={kind}", "parallel.activation_checkpointing=none")
    shown = timeline(found)
    assert (shown.micro_batches, len(shown.ranks)) == (56, 28)
    for boxes in shown.ranks:
        assert all(a.end <= b.start for a, b in pairwise(boxes))
    # The busiest rank waits for what the closed form says, a little less where others are quicker.
    idle = bubble_of(found.layout, found.config.parallel.schedule) / 56
    assert min(shown.idle) == pytest.approx(idle / (1 + idle), abs=0.015)


def test_a_short_step_is_played_whole() -> None:
    found = planned("training.global_batch=30")
    assert timeline(found).micro_batches == found.largest.micro_batches == 30
