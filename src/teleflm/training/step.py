"""One step: micro-batches forward and backward, then the update, if its figures are sound."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from teleflm.model.loss import autocast, loss_sum
from teleflm.model.network import TeleFLM
from teleflm.training.faults import Verdict
from teleflm.training.learner import Learner


@dataclass(frozen=True)
class StepResult:
    """Mean loss of the batch in nats a token, the gradient norm before clipping, the verdict."""

    loss: float
    grad_norm: float
    verdict: Verdict


def accumulate(network: TeleFLM, batch: Tensor, micro_batch: int, dtype: str) -> Tensor:
    """Add the gradient of a batch's mean loss, micro-batch by micro-batch.

    Args:
        network: where the gradients go.
        batch: token ids (B, S + 1).
        micro_batch: sequences at a time.
        dtype: the run's.

    Returns:
        The mean loss, 0-dim float64, without a graph.
    """
    predictions = batch[:, 1:].numel()
    total = torch.zeros((), dtype=torch.float64, device=batch.device)
    for rows in batch.split(micro_batch):
        with autocast(network, dtype):
            loss = loss_sum(network, rows) / predictions
        loss.backward()
        total += loss.detach()
    return total


def train_step(
    learner: Learner,
    batch: Tensor,
    *,
    step: int,
    factor: float,
    clip: float,
    micro_batch: int,
    dtype: str,
    judge: Callable[[float, float], Verdict],
) -> StepResult:
    """From `step` to the next on one batch (B, S + 1); see `Learner.update` for the rest.

    `judge` has the loss and the gradient norm before the update, and may refuse it. Afterwards the
    learner stands at the next step, masks and multipliers included.
    """
    total = accumulate(learner.network, batch, micro_batch, dtype)
    # Both in one transfer, the step's only wait for the device.
    loss, norm = torch.stack((total, learner.clip(clip).to(total))).tolist()
    verdict = judge(loss, norm)
    if verdict.takes_update:
        learner.update(step, factor)
    else:
        learner.skip()
    learner.move(step + 1)
    return StepResult(loss, norm, verdict)
