"""A block that computes again what it did not keep computes the same."""

from dataclasses import replace
from typing import get_args

import pytest
import torch
from torch._dynamo.utils import counters

from teleflm.config.model import ModelConfig
from teleflm.config.run import OptimizerConfig, Precision, Recomputation
from teleflm.generation.generate import generate
from teleflm.growth.grow import grow
from teleflm.growth.state import TrainingState
from teleflm.model.batch import Batch
from teleflm.model.network import TeleFLM
from teleflm.parallel.blocks import wrap_blocks
from teleflm.parallel.engine import OneProcess
from teleflm.training.learner import Learner
from tests.growing import batch_of, trained_state, uneven

PARENT = ModelConfig(
    vocab_size=41,
    hidden_size=24,
    intermediate_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    max_position_embeddings=64,
)
CHILD = PARENT.model_copy(update={"hidden_size": 32, "num_hidden_layers": 3})


@pytest.fixture(scope="module")
def state() -> TrainingState:
    """Inside a growth, its masks half open."""
    grown = grow(trained_state(PARENT, 2), CHILD, ramp=8, seed=1)
    return replace(grown, step=grown.step + 3)


def learner_of(
    state: TrainingState, kind: Recomputation, precision: Precision = "fp64", compiled: bool = False
) -> Learner:
    weights = torch.float64 if precision == "fp64" else torch.float32
    engine = OneProcess(
        CHILD,
        weights,
        torch.device("cpu"),
        precision=precision,
        micro_batch=2,
        recomputation=kind,
        compiled=compiled,
    )
    return Learner(state, OptimizerConfig(), engine=engine)


def found(learner: Learner, texts: bool = False) -> list[torch.Tensor]:
    """The loss of a batch, and all its gradients."""
    batch = Batch.next_tokens(batch_of(CHILD, 5, rows=4))
    loss = learner.accumulate(uneven(batch, 5) if texts else batch)
    return [loss, *(shard.gradient.clone() for shard in learner.engine.shards)]


@pytest.mark.parametrize("precision", ["fp64", "bf16"])
@pytest.mark.parametrize("kind", get_args(Recomputation))
def test_losses_and_gradients_are_the_same_to_the_bit(
    state: TrainingState, kind: Recomputation, precision: Precision
) -> None:
    for texts in (False, True):
        kept, again = (found(learner_of(state, each, precision), texts) for each in ("none", kind))
        assert all(map(torch.equal, kept, again))


@pytest.mark.parametrize("kind", ["selective", "full"])
def test_without_gradients_it_reads_as_before(state: TrainingState, kind: Recomputation) -> None:
    rows = Batch.next_tokens(batch_of(CHILD, 7, rows=3))
    kept, again = (learner_of(state, each) for each in ("none", kind))
    assert again.engine.loss_sum(rows) == kept.engine.loss_sum(rows)
    # With a cache that blocks write into, once for each token.
    texts = [generate(each.network, [[1, 2, 3]], 8) for each in (kept, again)]
    assert texts[0] == texts[1]


@pytest.mark.slow
@pytest.mark.parametrize("kind", get_args(Recomputation))
def test_it_goes_together_with_compilation(state: TrainingState, kind: Recomputation) -> None:
    torch.compiler.reset()
    counters.clear()
    plain, compiled = (
        found(learner_of(state, kind, "fp32", compiled)) for compiled in (False, True)
    )
    for one, other in zip(plain, compiled, strict=True):
        assert (one - other).norm() <= 1e-6 * other.norm()
    # All blocks are one graph, and none of them was passed over.
    assert counters["stats"]["unique_graphs"] == 1


@pytest.mark.slow
def test_texts_of_any_number_are_one_graph_or_two(state: TrainingState) -> None:
    torch.compiler.reset()
    counters.clear()
    plain, compiled = (learner_of(state, "none", "fp32", compiled) for compiled in (False, True))
    for seed in range(4):
        # A micro-batch has as many texts as it happens to have.
        batch = uneven(Batch.next_tokens(batch_of(CHILD, seed, rows=4)), seed)
        losses = [learner.accumulate(batch).item() for learner in (plain, compiled)]
        assert losses[1] == pytest.approx(losses[0], rel=1e-6)
    for one, other in zip(plain.engine.shards, compiled.engine.shards, strict=True):
        assert (one.gradient - other.gradient).norm() <= 1e-5 * one.gradient.norm()
    assert counters["stats"]["unique_graphs"] <= 2


def test_code_for_another_width_of_vectors_is_not_taken_from_the_cache(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.compiler.config, "cache_key_tag", "")
    tags = set()
    for width in ("AVX2", "AVX512"):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda width=width: width)
        for rank in ("rank 0", "rank 1"):
            wrap_blocks(TeleFLM(CHILD), "none", compiled=True, rank=rank)
            tags.add(torch.compiler.config.cache_key_tag)
    assert len(tags) == 4
