"""Parents with a history and children of any shape, for tests of growth."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st

from teleflm.checkpoint.open import Opened
from teleflm.config.growth import DepthOperator, WidthConfig, WidthOperator
from teleflm.config.model import FEATURES, ModelConfig
from teleflm.config.run import OptimizerConfig
from teleflm.growth.event import Event
from teleflm.growth.grow import Growth
from teleflm.growth.state import Tensors, TrainingState
from teleflm.model.batch import IGNORED, Batch
from teleflm.model.init import initial_state
from teleflm.training.learner import Learner

OPTIMIZER = OptimizerConfig(learning_rate=2e-3, matrix_learning_rate=2e-4, weight_decay=0.1)

PARENT = ModelConfig(
    vocab_size=53,
    hidden_size=24,
    intermediate_size=40,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=6,
    max_position_embeddings=40,
    input_mult=1.3,
    output_mult=0.7,
    matrix_init_std=0.05,
    vector_init_std=0.05,
)
CHILD = PARENT.model_copy(
    update={
        "hidden_size": 37,
        "intermediate_size": 51,
        "num_hidden_layers": 4,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "output_mult": 1.9,
        "input_mult": 0.8,
    }
)


def fresh_state(model: ModelConfig, seed: int = 0) -> TrainingState:
    """An untrained state."""
    weights = initial_state(model, seed)
    return TrainingState(
        model=model,
        weights=weights,
        exp_avg={name: torch.zeros_like(weight) for name, weight in weights.items()},
        exp_avg_sq={name: torch.zeros_like(weight) for name, weight in weights.items()},
        adam_steps=0,
        step=0,
        tokens=0,
        sequences=0,
        flops=0,
        lineage=(Event(operator="init", to=model, seed=seed),),
    )


def opened_of(
    model: ModelConfig, weights: Tensors, tokenizer: Path | None = None, **standing: Any
) -> Opened:
    """A model `toy` with these weights, as if it had been opened."""
    state = replace(fresh_state(model), weights=weights, **standing)
    return Opened("toy", state.lazy(), tokenizer=tokenizer)


def batch_of(model: ModelConfig, seed: int, rows: int = 2, length: int = 16) -> torch.Tensor:
    """Random token ids (rows, length + 1)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(model.vocab_size, (rows, length + 1), generator=generator)


def uneven(batch: Batch, seed: int) -> Batch:
    """The same with several texts a row, and in the first half of all rows no target that counts,
    in the others more and more."""
    generator = torch.Generator().manual_seed(seed)
    begins = torch.rand(batch.tokens.shape, generator=generator) < 0.25
    places = torch.arange(batch.length).expand(batch.rows, -1)
    starts = torch.where(begins, places, 0).cummax(1).values
    row = torch.arange(batch.rows)[:, None]
    counted = (row >= batch.rows // 2) & (places < 2 * (row - batch.rows // 2) + 1)
    # The last of a text has no target, but for the last of a row.
    counted[:, :-1] &= starts[:, 1:] != places[:, 1:]
    return Batch(batch.tokens, batch.targets.masked_fill(~counted, IGNORED), starts)


def train_on(learner: Learner, batch: torch.Tensor, step: int, clip: float = 1.0) -> float:
    """One float64 update; returns the loss before it."""
    loss = learner.accumulate(Batch.next_tokens(batch)).item()
    learner.clip(clip)
    learner.update(step, 1.0)
    learner.move(step + 1)
    return loss


def trained_state(model: ModelConfig, steps: int = 5, seed: int = 0) -> TrainingState:
    """A float64 state with `steps` updates behind it, and so with moments that matter."""
    state = fresh_state(model, seed)
    learner = Learner(state, OPTIMIZER, torch.float64)
    for step in range(steps):
        train_on(learner, batch_of(model, step), step)
    weights, exp_avg, exp_avg_sq = learner.tensors()
    return TrainingState(
        model=model,
        weights=weights,
        exp_avg=exp_avg,
        exp_avg_sq=exp_avg_sq,
        adam_steps=steps,
        step=steps,
        tokens=steps * 32,
        sequences=steps * 2,
        flops=0,
        lineage=state.lineage,
    )


@st.composite
def growths(
    draw: st.DrawFn, widths: Sequence[WidthOperator], depths: Sequence[DepthOperator]
) -> tuple[ModelConfig, Growth]:
    """A parent, and a growth of it that these operators can do."""
    operators = st.sampled_from(widths)
    width = WidthConfig(hidden=draw(operators), heads=draw(operators), ffn=draw(operators))
    depth = draw(st.sampled_from(depths))

    def sizes(low: int, high: int, more: int, operator: str) -> tuple[int, int]:
        size = draw(st.integers(low, high))
        if operator == "clone":
            return size, size * draw(st.integers(1, 3))
        return size, size + draw(st.integers(0, more))

    hidden, ffn = sizes(4, 20, 20, width.hidden), sizes(3, 20, 20, width.ffn)
    groups, queries = sizes(1, 3, 2, width.heads), sizes(1, 3, 2, width.heads)
    layers = sizes(1, 3, 3, depth)
    shared: dict[str, Any] = {
        "vocab_size": 31,
        "head_dim": draw(st.sampled_from([2, 4, 6])),
        "max_position_embeddings": 33,
        "rms_norm_eps": draw(st.sampled_from([1e-6, 1e-5, 1e-3])),
        "parametrization": draw(st.sampled_from(["mup", "standard"])),
        "mup_base_width": draw(st.sampled_from([8, 256])),
        "matrix_init_std": 0.05,
        "vector_init_std": 0.05,
        **{feature: draw(st.booleans()) for feature in FEATURES},
    }
    multipliers = st.sampled_from([0.4, 0.7, 1.0, 1.3, 2.0])
    parent, child = (
        ModelConfig(
            hidden_size=hidden[i],
            intermediate_size=ffn[i],
            num_hidden_layers=layers[i],
            num_attention_heads=groups[i] * queries[i],
            num_key_value_heads=groups[i],
            input_mult=draw(multipliers),
            output_mult=draw(multipliers),
            **shared,
        )
        for i in (0, 1)
    )
    growth = Growth(
        child,
        width,
        depth,
        place=draw(st.sampled_from(["even", "stack"])),
        ramp=100,
        symmetry=draw(st.sampled_from(["noise", "split", "keep"])),
        seed=draw(st.integers(0, 99)),
    )
    return parent, growth


def parents_and_children() -> st.SearchStrategy[tuple[ModelConfig, ModelConfig]]:
    """Two models of which masks can reach the second from the first."""
    return growths(["mask"], ["mask"]).map(lambda drawn: (drawn[0], drawn[1].to))
