"""Micro-batches through the stages of a pipeline, on PyTorch's schedules."""

from typing import Any

import torch
from torch import Tensor
from torch.distributed.pipelining.schedules import (
    Schedule1F1B,
    ScheduleInterleaved1F1B,
    ScheduleInterleavedZeroBubble,
)

from teleflm.config.run import PipelineSchedule
from teleflm.model.batch import Batch
from teleflm.parallel.in_flight import InFlightStage
from teleflm.parallel.mesh import Mesh
from teleflm.parallel.stage import Stage

# The first takes one stage of a rank, the others a list.
SCHEDULES: dict[PipelineSchedule, Any] = {
    "1f1b": Schedule1F1B,
    "interleaved": ScheduleInterleaved1F1B,
    "zero_bubble": ScheduleInterleavedZeroBubble,
}
"""PyTorch's schedules by their names in a run."""


class Pipeline:
    """This rank's stages in their schedule.

    Args:
        stages: the rank's, laid out.
        mesh: all ranks.
        kind: which of PyTorch's schedules.
        micro_batches: into how many parts each batch is split.
        stream: what the residual stream travels in.
    """

    def __init__(
        self,
        stages: list[Stage],
        mesh: Mesh,
        kind: PipelineSchedule,
        micro_batches: int,
        stream: torch.dtype,
    ) -> None:
        self._mesh = mesh
        self._stages, self._kind, self._micro_batches = stages, kind, micro_batches
        self._stream = stream
        self._schedule: Any = None

    def accumulate(self, batch: Batch, predictions: int) -> Tensor:
        """Add the gradient of Σ loss / predictions of this rank's batch."""
        losses: list[Tensor] = []
        self._predictions = predictions
        self._schedule_for(batch).step(
            *self._inputs(batch), **self._beside(batch), losses=losses, return_outputs=False
        )
        return self._total(losses)

    def loss_sum(self, batch: Batch) -> Tensor:
        """Σ loss in nats of a batch of as many rows."""
        losses: list[Tensor] = []
        self._predictions = 1
        self._schedule_for(batch).eval(*self._inputs(batch), **self._beside(batch), losses=losses)
        return self._total(losses)

    def _inputs(self, batch: Batch) -> tuple[Tensor, ...]:
        return (batch.tokens,) if self._mesh.place.pp == 0 else ()

    def _beside(self, batch: Batch) -> dict[str, Tensor]:
        """What each stage is given of a micro-batch beside what comes from the one before it."""
        # Targets once more to the schedule, which wants them for its loss function.
        beside = {"targets": batch.targets, "target": batch.targets}
        return beside if batch.starts is None else {**beside, "starts": batch.starts}

    def _total(self, losses: list[Tensor]) -> Tensor:
        """Their sum without a graph; other stages than the last have none."""
        total = torch.zeros((), dtype=torch.float64, device=self._mesh.device)
        return total + sum(loss.detach() for loss in losses)

    def _schedule_for(self, batch: Batch) -> Any:
        """The schedule, made at the first batch; all have its shape."""
        if self._schedule is None:
            self._schedule = self._build(batch.rows // self._micro_batches, batch.length)
        return self._schedule

    def _build(self, rows: int, length: int) -> Any:
        layout, place = self._mesh.layout, self._mesh.place
        group = self._mesh.axes["pp"].get_group()
        stages = [
            InFlightStage(
                stage,
                place.pp + index * layout.pp,
                layout.stages,
                self._mesh.device,
                # Told, not found out: that would be a forward and a backward pass more.
                input_args=self._input(stage, rows, length),
                output_args=self._output(stage, rows, length),
                group=group,
            )
            for index, stage in enumerate(self._stages)
        ]
        options: dict[str, Any] = {"loss_fn": self._loss, "scale_grads": False}
        given = stages[0] if self._kind == "1f1b" else stages
        return SCHEDULES[self._kind](given, self._micro_batches, **options)

    def _input(self, stage: Stage, rows: int, length: int) -> Tensor:
        if stage.is_first:
            return torch.empty(rows, length, dtype=torch.int64, device="meta")
        return self._residual_stream(stage, rows, length)

    def _output(self, stage: Stage, rows: int, length: int) -> Tensor:
        if stage.is_last:
            return torch.empty(1, dtype=torch.float64, device="meta", requires_grad=True)
        return self._residual_stream(stage, rows, length)

    def _residual_stream(self, stage: Stage, rows: int, length: int) -> Tensor:
        """Of one micro-batch, as it goes from stage to stage: (B, S / tp, D)."""
        shape = rows, length // self._mesh.layout.tp, stage.network.config.hidden_size
        return torch.empty(shape, dtype=self._stream, device="meta", requires_grad=True)

    def _loss(self, output: Tensor, _: Tensor) -> Tensor:
        return output.sum() / self._predictions
