"""The trajectory of two models: trained on the same batches, with their own moments."""

from collections.abc import Sequence

import torch
from torch import Tensor

from teleflm.certificate.record import TrajectoryError
from teleflm.config.model import ModelConfig
from teleflm.config.run import OptimizerConfig
from teleflm.generation.generate import generate
from teleflm.generation.sampling import Sampling
from teleflm.model.batch import IGNORED, Batch
from teleflm.model.network import TeleFLM
from teleflm.parallel.engine import Engine
from teleflm.training.learner import Learner

# At higher rates rounding grows into visible differences by itself: chaos, not error.
_LARGEST_RATE = 1e-4
_DECAY = 0.1


def trajectory_error(
    learners: Sequence[Learner], at: tuple[int, int], batches: Tensor, *, document_mask: bool
) -> TrajectoryError:
    """What becomes of the losses on the parent's own text, each learner held at its own step's
    masks.

    Args:
        learners: the parent's and the child's, from `sharpened` hyperparameters; used up.
        at: the step at whose masks each is held.
        batches: of all ranks (count, B, S + 1). There is an update for each but the first, whose
            losses are those before any.
        document_mask: whether each row is taken for two texts that do not see each other.
    """
    worst, clip = 0.0, None
    for rows in batches:
        batch = _two_texts(rows) if document_mask else Batch.next_tokens(rows)
        losses = [learner.accumulate(_share(batch, learner.engine)).item() for learner in learners]
        worst = max(worst, abs(losses[1] / losses[0] - 1))
        if clip is None:
            # Half of the first norm, so that clipping is at work in every step.
            clip = 0.5 * learners[0].gradient_norm().item()
        for learner, step in zip(learners, at, strict=True):
            learner.clip(clip)
            learner.update(step, 1.0)
    return TrajectoryError(len(batches) - 1, worst)


def _two_texts(rows: Tensor) -> Batch:
    """Rows (B, S + 1) cut into two texts each."""
    targets, starts = rows[:, 1:].clone(), torch.zeros_like(rows[:, 1:])
    half = targets.shape[1] // 2
    # The last of the first text has none, as that is of the other one.
    targets[:, half - 1 : half], starts[:, half:] = IGNORED, half
    return Batch(rows[:, :-1], targets, starts)


def _share(batch: Batch, engine: Engine) -> Batch:
    """What this rank reads of a batch."""
    return batch.split(batch.rows // engine.data_ranks)[engine.data_rank].to(engine.device)


def sharpened(config: OptimizerConfig, parent: ModelConfig) -> OptimizerConfig:
    """A run's hyperparameters at rates where rounding stays small, with decay that bites."""
    width, base = parent.mup_widths()
    ratio = width / base
    return config.model_copy(
        update={
            "learning_rate": min(config.learning_rate, _LARGEST_RATE),
            "matrix_learning_rate": min(config.matrix_learning_rate, _LARGEST_RATE * ratio),
            "weight_decay": max(config.weight_decay, _DECAY),
        }
    )


def own_text(network: TeleFLM, rows: int, length: int, seed: int) -> Tensor:
    """What the model itself writes, sampled: token ids (rows, length).

    Random tokens are a shock to a trained model: its steps are then wild, and rounding grows a
    billionfold within thirty of them. On its own text a model is at rest.
    """
    generator = torch.Generator().manual_seed(seed)
    first = torch.randint(network.config.vocab_size, (rows, 1), generator=generator)
    written = generate(network, first.tolist(), length - 1, Sampling(1.0, seed=seed))
    return torch.cat((first, torch.tensor(written)), 1)
