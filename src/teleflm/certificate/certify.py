"""The growth certificate: what a growth changed, measured.

The *function*: logits before and after. The *trajectory*: the grown model and its parent, both
trained on the same batches with their own moments, clipping and decay, the masks held shut. A
wrong moment map, learning rate or decay passes every check at step 0 and fails here.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from teleflm.config.model import ModelConfig
from teleflm.config.run import OptimizerConfig
from teleflm.errors import CheckpointError
from teleflm.growth.state import TrainingState
from teleflm.model.network import TeleFLM
from teleflm.training.learner import Learner
from teleflm.training.step import accumulate

FP64_BOUND, FP32_BOUND, TRAJECTORY_BOUND = 1e-12, 1e-5, 1e-12
# Beyond this rate rounding grows into visible differences by itself: chaos, not error.
_LARGEST_RATE = 3e-3
_DECAY = 0.1
_SEQUENCES, _POSITIONS = 2, 32


@dataclass(frozen=True)
class FunctionError:
    """max |Δ logit| / max |parent's logit| in float64 and in float32."""

    max_relative_logit_error: float
    dtype: str
    float32_max_relative_logit_error: float


@dataclass(frozen=True)
class TrajectoryError:
    """The largest relative difference of the losses over `steps` further updates."""

    steps: int
    max_relative_loss_difference: float


@dataclass(frozen=True)
class Certificate:
    """What was measured, and the verdict; `trajectory` is None for models without moments."""

    function: FunctionError
    trajectory: TrajectoryError | None

    @property
    def float64_bound(self) -> float:
        """The bound on the float64 error: a folder of weights alone holds them rounded to fp32."""
        return FP64_BOUND if self.trajectory is not None else FP32_BOUND

    @property
    def exact(self) -> bool:
        """Whether every figure is within rounding."""
        trajectory = self.trajectory
        return (
            self.function.max_relative_logit_error <= self.float64_bound
            and self.function.float32_max_relative_logit_error <= FP32_BOUND
            and (trajectory is None or trajectory.max_relative_loss_difference <= TRAJECTORY_BOUND)
        )

    def to_json(self) -> dict[str, Any]:
        """The keys that `verify --json` prints: the figures, the bounds and the verdict."""
        bounds = {
            "function": self.float64_bound,
            "float32_function": FP32_BOUND,
            "trajectory": TRAJECTORY_BOUND,
        }
        return {**asdict(self), "bounds": bounds, "exact": self.exact}


def certify(
    parent: TrainingState,
    child: TrainingState,
    *,
    optimizer: OptimizerConfig | None = None,
    steps: int = 30,
    seed: int = 0,
) -> Certificate:
    """Certify a growth: `child` as `grow` made it against the `parent` that it was made from.

    Args:
        parent, child: the two states.
        optimizer: the run's hyperparameters; rates above 3e-3 are lowered to it, and decay and
            clipping are made to bite.
        steps: updates of the trajectory.
        seed: of the random token batches.

    Raises:
        CheckpointError: the two do not share a vocabulary.
    """
    config = _sharpened(optimizer or OptimizerConfig(), parent)
    batches = token_batches(parent.model, child.model, steps, seed)
    function = {
        dtype: relative_error(
            Learner(parent, config, dtype).network,
            Learner(child, config, dtype).network,
            batches[0],
        )
        for dtype in (torch.float64, torch.float32)
    }
    learners = [Learner(state, config, torch.float64) for state in (parent, child)]
    return Certificate(
        FunctionError(function[torch.float64], "float64", function[torch.float32]),
        TrajectoryError(steps, _trajectory(learners, (parent.step, child.step), batches)),
    )


@torch.no_grad()
def relative_error(parent: TeleFLM, child: TeleFLM, tokens: Tensor) -> float:
    """max |Δ logit| / max |parent's logit| over tokens (B, S)."""
    before, after = parent(tokens), child(tokens)
    return ((after - before).abs().max() / before.abs().max()).item()


def _sharpened(config: OptimizerConfig, parent: TrainingState) -> OptimizerConfig:
    ratio = parent.model.hidden_size / parent.model.mup_base_width
    return config.model_copy(
        update={
            "learning_rate": min(config.learning_rate, _LARGEST_RATE),
            "matrix_learning_rate": min(config.matrix_learning_rate, _LARGEST_RATE * ratio),
            "weight_decay": max(config.weight_decay, _DECAY),
        }
    )


def token_batches(before: ModelConfig, after: ModelConfig, count: int, seed: int) -> Tensor:
    """Random token ids (count, B, S + 1) that both models can read.

    Raises:
        CheckpointError: their vocabularies differ.
    """
    if before.vocab_size != after.vocab_size:
        raise CheckpointError(
            f"vocabularies of {before.vocab_size} and {after.vocab_size} tokens: these two are not "
            "parent and child; name the checkpoint that was grown and the grown one"
        )
    longest = min(before.max_position_embeddings, after.max_position_embeddings)
    shape = (count, _SEQUENCES, min(_POSITIONS, longest - 1) + 1)
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(before.vocab_size, shape, generator=generator)


def _trajectory(learners: list[Learner], steps: tuple[int, int], batches: Tensor) -> float:
    """The largest relative loss difference, each learner held at its own step's masks."""
    worst, clip = 0.0, None
    for batch in batches:
        losses = [
            accumulate(learner.network, batch, len(batch), "fp64").item() for learner in learners
        ]
        worst = max(worst, abs(losses[1] / losses[0] - 1))
        if clip is None:
            # Half of the first norm, so that clipping is at work in every step.
            grads = [p.grad for p in learners[0].network.parameters() if p.grad is not None]
            clip = 0.5 * torch.nn.utils.get_total_norm(grads).item()
        for learner, step in zip(learners, steps, strict=True):
            learner.update(step, 1.0, clip)
    return worst
