"""The timeline of a pipeline's step: what each rank does when, in PyTorch's own order."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from teleflm.config.run import PipelineSchedule, RunConfig
from teleflm.parallel.layout import Layout
from teleflm.parallel.pipeline import SCHEDULES
from teleflm.planning.closed import closed_form
from teleflm.planning.plan import Plan
from teleflm.planning.time import step_time

Kind = Literal["forward", "backward", "input", "weight"]
"""A pass: backward as a whole, or its two parts, to the stage before and to the weights."""

_KINDS: dict[str, Kind] = {"F": "forward", "B": "backward", "I": "input", "W": "weight"}
# Rounds of micro-batches that are played of a step with more: with the second the pipeline is full.
_ROUNDS = 2


@dataclass(frozen=True)
class Action:
    """A pass of a micro-batch through a stage."""

    kind: Kind
    stage: int
    micro_batch: int


@dataclass(frozen=True)
class Box:
    """An action with its start and end, in seconds."""

    action: Action
    start: float
    end: float


Seconds = Mapping[Kind, float]
"""What each pass of a micro-batch takes through all stages of a rank."""


@dataclass(frozen=True)
class Timeline:
    """What the pipeline ranks do in a step.

    Attributes:
        micro_batches: that were played.
        ranks: of each pipeline rank its boxes, one after the other.
    """

    micro_batches: int
    ranks: list[list[Box]]

    @property
    def seconds(self) -> float:
        """Until the last rank is done."""
        return max(boxes[-1].end for boxes in self.ranks)

    @property
    def idle(self) -> list[float]:
        """The share of that time in which each rank waits."""
        work = [sum(box.end - box.start for box in boxes) for boxes in self.ranks]
        return [1 - each / self.seconds for each in work]


def timeline(plan: Plan) -> Timeline:
    """The timeline of a planned step; of a step with many micro-batches that of a shorter one.

    Communication is spread over a rank's passes as its FLOPs are, and a rank's stages take as long
    as each other.
    """
    schedule = plan.config.parallel.schedule
    played = min(plan.largest.micro_batches, _ROUNDS * plan.layout.pp)
    seconds = [seconds_of(plan, rank) for rank in range(plan.layout.pp)]
    return play(order_of(schedule, plan.layout, played), plan.layout, seconds)


def seconds_of(plan: Plan, pipeline_rank: int) -> Seconds:
    """What the passes of a micro-batch take on a pipeline rank, what is computed again too."""
    config, layout = plan.config, plan.layout
    work = closed_form(config, layout, pipeline_rank)
    time = step_time(config, layout, plan.cluster, [work])
    each = (time.compute + time.tensor + time.pipeline) / work.micro_batches
    # Of a matrix there are three products: forward, and two backward. What more there is, is
    # computed again on the way back.
    product = closed_form(_without_recomputation(config), layout, pipeline_rank).flops / 3
    forward = each * product / work.flops
    return {
        "forward": forward,
        "backward": each - forward,
        "input": each - 2 * forward,
        "weight": forward,
    }


def _without_recomputation(config: RunConfig) -> RunConfig:
    parallel = config.parallel.model_copy(update={"activation_checkpointing": "none"})
    return config.model_copy(update={"parallel": parallel})


@dataclass
class _Stage:
    """What a schedule asks of a pipeline stage before it tells its order."""

    stage_index: int
    num_stages: int
    group_size: int
    group_rank: int = 0
    submod: None = None


def order_of(schedule: PipelineSchedule, layout: Layout, micro_batches: int) -> list[list[Action]]:
    """What each pipeline rank does, in the order of PyTorch's schedule.

    Args:
        schedule: of the run.
        layout: of all ranks; with a pipeline.
        micro_batches: in a step, as many as the schedule takes.
    """
    stages = [
        _Stage(index, layout.stages, layout.pp) for index in range(0, layout.stages, layout.pp)
    ]
    given = stages[0] if schedule == "1f1b" else stages
    order = SCHEDULES[schedule](given, micro_batches).pipeline_order
    return [_numbered(order[rank]) for rank in range(layout.pp)]


def _numbered(actions: Sequence[Any]) -> list[Action]:
    """The passes among a schedule's actions.

    Micro-batches go through a stage in turn. So they are counted here: PyTorch (2.11 to 2.13) says
    of 1F1B's last rank 1 to m, where it computes 0 to m - 1.
    """
    seen: Counter[tuple[Kind, int]] = Counter()
    found = []
    for action in actions:
        # None is a turn in which PyTorch expects the rank to wait, whatever a pass takes.
        kind = _KINDS.get(action.computation_type.value) if action is not None else None
        if kind is not None:
            found.append(Action(kind, action.stage_index, seen[kind, action.stage_index]))
            seen[kind, action.stage_index] += 1
    return found


def play(order: Sequence[Sequence[Action]], layout: Layout, seconds: Sequence[Seconds]) -> Timeline:
    """Each rank's actions in their order, each as soon as what it needs is there.

    What is sent is there at once.

    Args:
        order: of each pipeline rank.
        layout: of all ranks.
        seconds: of each pipeline rank; its stages have equal shares.
    """
    ends: dict[tuple[bool, int, int], float] = {}
    ranks: list[list[Box]] = [[] for _ in order]
    left, before = sum(map(len, order)), 0
    while left != before:
        before = left
        for actions, boxes, takes in zip(order, ranks, seconds, strict=True):
            for action in actions[len(boxes) :]:
                needs = _needs(action, layout)
                if needs is not None and needs not in ends:
                    break
                free = boxes[-1].end if boxes else 0.0
                start = max(free, ends[needs]) if needs is not None else free
                end = start + takes[action.kind] / layout.stages_per_rank
                boxes.append(Box(action, start, end))
                left -= 1
                if action.kind != "weight":
                    ends[action.kind == "forward", action.stage, action.micro_batch] = end
    assert left == 0, "a pass waits for one that never comes"
    return Timeline(sum(a.kind == "forward" and a.stage == 0 for a in order[0]), ranks)


def _needs(action: Action, layout: Layout) -> tuple[bool, int, int] | None:
    """Whose end a pass waits for: whether it is forward, its stage and its micro-batch."""
    stage, micro_batch = action.stage, action.micro_batch
    if action.kind == "forward":
        return (True, stage - 1, micro_batch) if stage > 0 else None
    if action.kind == "weight":
        return (False, stage, micro_batch)
    if stage == layout.stages - 1:
        return (True, stage, micro_batch)
    return (False, stage + 1, micro_batch)
