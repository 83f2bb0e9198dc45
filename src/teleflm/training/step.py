"""One step: forward and backward, then the update."""

from dataclasses import dataclass

from torch import Tensor

from teleflm.training.learner import Learner


@dataclass(frozen=True)
class StepResult:
    """Mean loss of the batch in nats a token, and the gradient norm before clipping."""

    loss: float
    grad_norm: float


def train_step(
    learner: Learner, batch: Tensor, *, step: int, factor: float, clip: float
) -> StepResult:
    """From `step` to the next; see `Learner.update` for what is not said here.

    Afterwards the learner stands at the next step, masks and multipliers included.

    Args:
        learner: what learns.
        batch: this rank's token ids (B, S + 1).
    """
    loss = learner.accumulate(batch)
    norm = learner.update(step, factor, clip)
    learner.move(step + 1)
    return StepResult(loss.item(), norm.item())
