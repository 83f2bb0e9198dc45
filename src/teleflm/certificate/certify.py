"""The growth certificate: what a growth changed, measured.

The *function*: logits before and after. The *trajectory*: the grown model and its parent, both
trained on the same batches with their own moments, clipping and decay, the masks held shut. A
wrong moment map, learning rate or decay passes every check at step 0 and fails here.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from teleflm.config.model import ModelConfig
from teleflm.config.run import OptimizerConfig
from teleflm.errors import CheckpointError
from teleflm.growth.event import Event, Lineage
from teleflm.growth.grow import replayed
from teleflm.growth.operators import keeps_trajectory
from teleflm.growth.state import KINDS, TrainingState
from teleflm.model.cache import new_cache
from teleflm.model.network import TeleFLM
from teleflm.training.learner import Learner

FP64_BOUND, FP32_BOUND, TRAJECTORY_BOUND = 1e-12, 1e-5, 1e-12
# At higher rates rounding grows into visible differences by itself: chaos, not error.
_LARGEST_RATE = 1e-4
_DECAY = 0.1
_SEQUENCES, _POSITIONS = 2, 32


@dataclass(frozen=True)
class FunctionError:
    """max |Δ logit| / max |parent's logit| in float64 and in float32.

    `float32_rounding` is the same of the parent against itself, float32 against float64.
    """

    max_relative_logit_error: float
    dtype: str
    float32_max_relative_logit_error: float
    float32_rounding: float


@dataclass(frozen=True)
class TrajectoryError:
    """The largest relative difference of the losses over `steps` further updates."""

    steps: int
    max_relative_loss_difference: float


@dataclass(frozen=True)
class Certificate:
    """What was measured, and the verdict.

    Attributes:
        function: what became of the logits.
        trajectory: what becomes of the losses; None for models without moments.
        operators: what the model was grown by, as its lineage tells.
        regrown: whether every tensor is, bit for bit, what these growths make of the parent's;
            None where the lineage does not lead from the parent to it.
    """

    function: FunctionError
    trajectory: TrajectoryError | None
    operators: tuple[str, ...] = ()
    regrown: bool | None = None

    @property
    def promised_exact(self) -> bool:
        """Whether the operators claim to keep the function."""
        return "copy" not in self.operators

    @property
    def float64_bound(self) -> float:
        """The bound on the float64 error: a folder of weights alone holds them rounded to fp32."""
        return FP64_BOUND if self.trajectory is not None else FP32_BOUND

    @property
    def float32_bound(self) -> float:
        """The bound on the float32 error: two roundings apart where one is beyond the usual."""
        return max(FP32_BOUND, 2 * self.function.float32_rounding)

    @property
    def exact(self) -> bool:
        """Whether every figure is within rounding."""
        trajectory = self.trajectory
        return (
            self.regrown is not False
            and self.function.max_relative_logit_error <= self.float64_bound
            and self.function.float32_max_relative_logit_error <= self.float32_bound
            and (trajectory is None or trajectory.max_relative_loss_difference <= TRAJECTORY_BOUND)
        )

    def to_json(self) -> dict[str, Any]:
        """The keys that `verify --json` prints: the figures, the bounds and the verdict."""
        bounds = {
            "function": self.float64_bound,
            "float32_function": self.float32_bound,
            "trajectory": TRAJECTORY_BOUND,
        }
        return {
            **asdict(self),
            "bounds": bounds,
            "promised_exact": self.promised_exact,
            "exact": self.exact,
        }


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
        optimizer: the run's hyperparameters; rates above 1e-4 are lowered to it, and decay and
            clipping are made to bite.
        steps: updates of the trajectory.
        seed: of the tokens.

    Raises:
        CheckpointError: the two do not share a vocabulary.
    """
    config = _sharpened(optimizer or OptimizerConfig(), parent)
    tokens = random_tokens(parent.model, child.model, seed)
    (before, after), single = (
        [Learner(state, config, dtype) for state in (parent, child)]
        for dtype in (torch.float64, torch.float32)
    )
    function = function_error(
        (before.network, after.network), (single[0].network, single[1].network), tokens
    )
    growths = growths_since(parent.lineage, child.lineage)
    regrown = _is_regrown(parent, child, growths) if growths else None
    if regrown and any(event.imbalance for event in growths):
        # Broken on purpose: up to then, clones stay equal and learn as what they are clones of.
        after = Learner(_unbroken(parent, growths), config, torch.float64)
    if not all(keeps_trajectory(event) for event in growths):
        steps = 0
    batches = _own_text(before.network, (steps + 1, *tokens.shape), seed)
    worst = _trajectory([before, after], (parent.step, child.step), batches)
    operators = tuple(event.operator for event in growths)
    return Certificate(function, TrajectoryError(steps, worst), operators, regrown)


def growths_since(before: Lineage, after: Lineage) -> tuple[Event, ...]:
    """The growths that lead from one lineage to the other, none where other events do too."""
    more = after[len(before) :]
    leads = after[: len(before)] == before and all(event.is_growth for event in more)
    return more if leads else ()


def _is_regrown(parent: TrainingState, child: TrainingState, growths: Sequence[Event]) -> bool:
    again = replayed(parent.lazy(), growths).in_memory()
    return all(
        torch.equal(tensor, child.tensors(kind)[name])
        for kind in KINDS
        for name, tensor in again.tensors(kind).items()
    )


def _unbroken(parent: TrainingState, growths: Sequence[Event]) -> TrainingState:
    """The grown state with its clones left equal, in float64."""
    kept = [
        event.model_copy(update={"symmetry": "keep"}) if event.operator == "clone" else event
        for event in growths
    ]
    return replayed(parent.lazy().to(torch.float64), kept).in_memory()


def function_error(
    double: tuple[TeleFLM, TeleFLM], single: tuple[TeleFLM, TeleFLM], tokens: Tensor
) -> FunctionError:
    """Parent and child, in float64 and in float32, on tokens (B, S)."""
    return FunctionError(
        max_relative_logit_error=relative_error(*double, tokens),
        dtype="float64",
        float32_max_relative_logit_error=relative_error(*single, tokens),
        float32_rounding=relative_error(double[0], single[0], tokens),
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


def random_tokens(before: ModelConfig, after: ModelConfig, seed: int) -> Tensor:
    """Random token ids (B, S + 1) that both models can read.

    Raises:
        CheckpointError: their vocabularies differ.
    """
    if before.vocab_size != after.vocab_size:
        raise CheckpointError(
            f"vocabularies of {before.vocab_size} and {after.vocab_size} tokens: these two are not "
            "parent and child; name the checkpoint that was grown and the grown one"
        )
    longest = min(before.max_position_embeddings, after.max_position_embeddings)
    shape = (_SEQUENCES, min(_POSITIONS, longest - 1) + 1)
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(before.vocab_size, shape, generator=generator)


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


def _trajectory(learners: list[Learner], steps: tuple[int, int], batches: Tensor) -> float:
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
