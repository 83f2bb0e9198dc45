"""The trajectory of two models: trained on the same batches, with their own moments."""

from collections.abc import Sequence

import torch
from torch import Tensor

from teleflm.certificate.record import TrajectoryError
from teleflm.config.run import OptimizerConfig
from teleflm.growth.state import TrainingState
from teleflm.model.cache import new_cache
from teleflm.model.network import TeleFLM
from teleflm.training.learner import Learner

# At higher rates rounding grows into visible differences by itself: chaos, not error.
_LARGEST_RATE = 1e-4
_DECAY = 0.1


def trajectory_error(
    learners: Sequence[Learner], at: tuple[int, int], steps: int, tokens: Tensor, seed: int
) -> TrajectoryError:
    """What becomes of the losses in `steps` updates on the parent's own text.

    Args:
        learners: the parent's and the child's, from `sharpened` hyperparameters; used up.
        at: the step at whose masks each is held.
        steps: updates; with none, the losses before any.
        tokens: of which only the shape (B, S + 1) matters.
        seed: of the text.
    """
    batches = _own_text(learners[0].network, (steps + 1, *tokens.shape), seed)
    return TrajectoryError(steps, _largest_difference(learners, at, batches))


def sharpened(config: OptimizerConfig, parent: TrainingState) -> OptimizerConfig:
    """A run's hyperparameters at rates where rounding stays small, with decay that bites."""
    ratio = parent.model.hidden_size / parent.model.mup_base_width
    return config.model_copy(
        update={
            "learning_rate": min(config.learning_rate, _LARGEST_RATE),
            "matrix_learning_rate": min(config.matrix_learning_rate, _LARGEST_RATE * ratio),
            "weight_decay": max(config.weight_decay, _DECAY),
        }
    )


@torch.no_grad()
def _own_text(network: TeleFLM, shape: tuple[int, ...], seed: int) -> Tensor:
    """What the model itself writes, sampled: batches (count, B, S + 1).

    Random tokens are a shock to a trained model: its steps are then wild, and rounding grows a
    billionfold within thirty of them. On its own text a model is at rest.
    """
    count, rows, length = shape
    generator = torch.Generator().manual_seed(seed)
    fed = torch.randint(network.config.vocab_size, (count * rows, 1), generator=generator)
    written, cache = [fed], new_cache(network.config.num_hidden_layers, length)
    for _ in range(length - 1):
        hidden = network.hidden(fed, cache)[:, -1]
        logits = network.lm_head(hidden) * network.logit_multiplier
        fed = torch.multinomial(torch.softmax(logits, -1), 1, generator=generator)
        written.append(fed)
    return torch.cat(written, 1).view(shape)


def _largest_difference(
    learners: Sequence[Learner], steps: tuple[int, int], batches: Tensor
) -> float:
    """The largest relative loss difference, each learner held at its own step's masks. There is an
    update for each batch but the first, whose losses are those before any."""
    worst, clip = 0.0, None
    for batch in batches:
        losses = [learner.accumulate(batch).item() for learner in learners]
        worst = max(worst, abs(losses[1] / losses[0] - 1))
        if clip is None:
            # Half of the first norm, so that clipping is at work in every step.
            clip = 0.5 * learners[0].gradient_norm().item()
        for learner, step in zip(learners, steps, strict=True):
            learner.clip(clip)
            learner.update(step, 1.0)
    return worst
