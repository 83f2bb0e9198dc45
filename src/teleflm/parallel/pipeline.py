"""Micro-batches through the stages of a pipeline, on PyTorch's schedules."""

from typing import Any

import torch
from torch import Tensor
from torch.distributed.pipelining import PipelineStage
from torch.distributed.pipelining.schedules import (
    Schedule1F1B,
    ScheduleInterleaved1F1B,
    ScheduleInterleavedZeroBubble,
)

from teleflm.config.run import PipelineSchedule
from teleflm.parallel.mesh import Mesh
from teleflm.parallel.stage import Stage


class Pipeline:
    """This rank's stages in their schedule.

    Args:
        stages: the rank's, laid out.
        mesh: all ranks.
        kind: which of PyTorch's schedules.
        micro_batches: into how many parts each batch is split.
    """

    def __init__(
        self, stages: list[Stage], mesh: Mesh, kind: PipelineSchedule, micro_batches: int
    ) -> None:
        self._mesh = mesh
        self._schedule = self._build(stages, kind, micro_batches)

    def accumulate(self, batch: Tensor, predictions: int) -> Tensor:
        """Add the gradient of Σ loss / predictions of this rank's batch (B, S + 1)."""
        losses: list[Tensor] = []
        self._predictions = predictions
        self._schedule.step(
            *self._inputs(batch), **self._targets(batch), losses=losses, return_outputs=False
        )
        return self._total(losses)

    def loss_sum(self, rows: Tensor) -> Tensor:
        """Σ loss in nats of as many token rows (B, S + 1) as a batch has; -1 pads."""
        losses: list[Tensor] = []
        self._predictions = 1
        self._schedule.eval(*self._inputs(rows.clamp(min=0)), **self._targets(rows), losses=losses)
        return self._total(losses)

    def _inputs(self, batch: Tensor) -> tuple[Tensor, ...]:
        return (batch[:, :-1],) if self._mesh.place.pp == 0 else ()

    def _targets(self, batch: Tensor) -> dict[str, Tensor]:
        targets = batch[:, 1:]
        # As an input of each stage, and to the schedule, which wants them for its loss function.
        return {"targets": targets, "target": targets}

    def _total(self, losses: list[Tensor]) -> Tensor:
        """Their sum without a graph; other stages than the last have none."""
        total = torch.zeros((), dtype=torch.float64, device=self._mesh.device)
        return total + sum(loss.detach() for loss in losses)

    def _build(self, parts: list[Stage], kind: PipelineSchedule, micro_batches: int) -> Any:
        layout, place = self._mesh.layout, self._mesh.place
        group = self._mesh.axes["pp"].get_group()
        stages = [
            PipelineStage(
                stage, place.pp + index * layout.pp, layout.stages, self._mesh.device, group=group
            )
            for index, stage in enumerate(parts)
        ]
        options: dict[str, Any] = {"loss_fn": self._loss, "scale_grads": False}
        if kind == "1f1b":
            (stage,) = stages
            return Schedule1F1B(stage, micro_batches, **options)
        kinds: dict[PipelineSchedule, Any] = {
            "interleaved": ScheduleInterleaved1F1B,
            "zero_bubble": ScheduleInterleavedZeroBubble,
        }
        return kinds[kind](stages, micro_batches, **options)

    def _loss(self, output: Tensor, _: Tensor) -> Tensor:
        return output.sum() / self._predictions
