"""The coordinates of a model in its first steps: how large they are, and how far a step moves them.

It all goes through training's own step, so that what is measured is what runs.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from teleflm.config.model import ModelConfig
from teleflm.config.run import OptimizerConfig
from teleflm.growth.state import TrainingState
from teleflm.model.axes import parameter_of
from teleflm.model.batch import Batch
from teleflm.model.network import Linear, TeleFLM
from teleflm.training.faults import Verdict
from teleflm.training.learner import Learner
from teleflm.training.step import train_step

Means = dict[str, float]
_Outputs = dict[str, list[Tensor]]

_ROWS, _POSITIONS, _PROBE_ROWS = 8, 32, 4
_PROBE = 2**31  # the seed of what the model is looked at on
# A decay that is seen in one step; a run's own may be none.
_DECAY = 0.1


@dataclass(frozen=True)
class Coordinates:
    """Mean absolute entries by quantity: the embedding's output, that of each kind of linear, the
    residual stream behind a layer (means over layers) and the logits.

    Attributes:
        levels: before the first step and after each.
        updates: after each step, of the difference to what was before the first.
        shrinkage: by class of parameter, what a step without a gradient takes off the weights, as
            a share of them.
    """

    levels: list[Means]
    updates: list[Means]
    shrinkage: Means


def measure(state: TrainingState, optimizer: OptimizerConfig, steps: int, seed: int) -> Coordinates:
    """Train a few steps, and look at the model on other tokens before and after each."""
    shrinkage = _shrinkage(state, optimizer)
    learner = Learner(state, optimizer)
    vocabulary = state.model.vocab_size
    probe = zipfian(vocabulary, (_PROBE_ROWS, _POSITIONS), _PROBE + seed)
    first = _observed(learner.network, probe)
    levels: list[Means] = [_means(first)]
    updates: list[Means] = []
    for index in range(steps):
        batch = zipfian(vocabulary, (_ROWS, _POSITIONS + 1), seed * steps + index)
        train_step(
            learner,
            Batch.next_tokens(batch),
            step=state.step + index,
            factor=1.0,
            clip=optimizer.clip,
            judge=lambda *_: Verdict(),
        )
        now = _observed(learner.network, probe)
        levels.append(_means(now))
        moved = {
            kind: [after - before for after, before in zip(now[kind], then, strict=True)]
            for kind, then in first.items()
        }
        updates.append(_means(moved))
    return Coordinates(levels, updates, shrinkage)


def small_rates(model: ModelConfig, optimizer: OptimizerConfig) -> OptimizerConfig:
    """A run's optimizer at rates that suit the init: a step moves an embedding by half of its std,
    and what a matrix writes by a third of that at the base width, whatever those are.

    A rate at which a step throws a model elsewhere hides its exponent.
    """
    return optimizer.model_copy(
        update={
            "learning_rate": model.vector_init_std / 2,
            "matrix_learning_rate": model.matrix_init_std / (3 * model.mup_base_width**0.5),
        }
    )


def zipfian(vocabulary: int, shape: tuple[int, int], seed: int) -> Tensor:
    """Token ids whose frequencies are 1/rank, as those of words are.

    These frequencies are what text teaches first, alike in every batch. Uniform tokens teach noise,
    and what is learnt of it does not add up on other tokens: logits then change less where wider.
    """
    generator = torch.Generator().manual_seed(seed)
    frequencies = 1 / torch.arange(1, vocabulary + 1, dtype=torch.float64)
    drawn = torch.multinomial(frequencies, shape[0] * shape[1], True, generator=generator)
    return drawn.view(shape)


def _shrinkage(state: TrainingState, optimizer: OptimizerConfig) -> Means:
    """From a step with gradients of zero: Adam's own part of it is nothing then."""
    learner = Learner(state, optimizer.model_copy(update={"weight_decay": _DECAY}))
    shards = learner.engine.shards

    def sizes() -> Means:
        found = {"matrix": 0.0, "vector": 0.0}
        for shard in shards:
            kind = "matrix" if parameter_of(shard.name).is_matrix_like else "vector"
            found[kind] += shard.local.detach().double().abs().sum().item()
        return found

    before = sizes()
    for shard in shards:
        shard.local.grad = torch.zeros_like(shard.local)
    learner.update(state.step, 1.0)
    return {
        kind: 1.0 - size / before[kind] if before[kind] else math.nan
        for kind, size in sizes().items()
    }


@torch.no_grad()
def _observed(network: TeleFLM, tokens: Tensor) -> _Outputs:
    """What each kind of module makes of tokens (B, S), layer by layer."""
    found: _Outputs = {}

    def read(_: Any, inputs: tuple[Tensor, ...]) -> None:
        found["embedding"] = [inputs[0]]

    def keep(kind: str) -> Callable[[Any, Any, Tensor], None]:
        return lambda _, __, output: found.setdefault(kind, []).append(output)

    blocks = list(network.model.layers)
    handles = [blocks[0].register_forward_pre_hook(read)]
    for block in blocks:
        handles.append(block.register_forward_hook(keep("stream")))
        handles += [
            module.register_forward_hook(keep(name.rpartition(".")[2]))
            for name, module in block.named_modules()
            if isinstance(module, Linear)
        ]
    try:
        found["logits"] = [network(tokens)]
    finally:
        for handle in handles:
            handle.remove()
    return found


def _means(outputs: _Outputs) -> Means:
    return {
        kind: sum(each.abs().double().mean().item() for each in layers) / len(layers)
        for kind, layers in outputs.items()
    }
