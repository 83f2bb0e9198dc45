"""One step: forward and backward, then the update, if its figures are sound."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from teleflm.model.batch import Batch
from teleflm.training.faults import Verdict
from teleflm.training.learner import Learner


@dataclass(frozen=True)
class StepResult:
    """Mean loss of the batch in nats a token, the gradient norm before clipping, the verdict."""

    loss: float
    grad_norm: float
    verdict: Verdict


def train_step(
    learner: Learner,
    batch: Batch,
    *,
    step: int,
    factor: float,
    clip: float,
    judge: Callable[[float, float], Verdict],
) -> StepResult:
    """From `step` to the next; see `Learner.update` for what is not said here.

    Afterwards the learner stands at the next step, masks and multipliers included.

    Args:
        learner: what learns.
        batch: what this rank reads.
        judge: has the loss and the gradient norm before the update, and may refuse it.
    """
    total = learner.accumulate(batch)
    # Both in one transfer, the step's only wait for the device.
    loss, norm = torch.stack((total, learner.clip(clip).to(total))).tolist()
    verdict = judge(loss, norm)
    if verdict.takes_update:
        learner.update(step, factor)
    else:
        learner.skip()
    learner.move(step + 1)
    return StepResult(loss, norm, verdict)
