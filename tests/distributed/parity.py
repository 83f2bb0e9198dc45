"""What a rank does in a case of the parity suite."""

import hashlib
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Literal

import torch
import torch.distributed as dist

from teleflm.config.model import ModelConfig
from teleflm.config.run import OptimizerConfig, ParallelConfig, TrainingConfig
from teleflm.growth.grow import grow
from teleflm.growth.state import TrainingState
from teleflm.model.batch import Batch
from teleflm.model.region import Region
from teleflm.parallel.layout import Layout, regions
from teleflm.parallel.many import ManyRanks
from teleflm.parallel.mesh import build_mesh
from teleflm.parallel.recipe import Recipe
from teleflm.training.learner import Learner
from tests.growing import batch_of, trained_state, uneven

# Every axis divides by 4, and the vocabulary by nothing.
PARENT = ModelConfig(
    vocab_size=41,
    hidden_size=24,
    intermediate_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=4,
    head_dim=8,
    max_position_embeddings=64,
    vector_init_std=0.05,
    input_mult=2.0,
)
CHILD = PARENT.model_copy(
    update={
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 4,
        "num_attention_heads": 8,
        "output_mult": 2.0,
    }
)
OPTIMIZER = OptimizerConfig(
    learning_rate=1e-3, matrix_learning_rate=1e-3, eps=1e-5, weight_decay=0.1
)
STEPS, ROWS = 3, 16
_DTYPES = {"fp64": torch.float64, "fp32": torch.float32}


@dataclass(frozen=True)
class Case:
    """A named case: a layout, and what else is at work.

    Attributes:
        layout: of all the ranks.
        parallel: schedule and activation checkpointing.
        dtype: of weights and computation.
        splits_batch: into micro-batches also where no pipeline asks for them.
        ramp: inside a growth, its masks half open.
        clip: largest gradient norm; infinite for none.
        compiled: blocks go through torch.compile.
        features: fields of the model that are on.
        kinds: whether some layers see a window only, and some have no RoPE.
        texts: rows hold several texts each, and ranks very different numbers of targets that
            count, one of them none.
    """

    name: str
    layout: Layout
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    dtype: Literal["fp64", "fp32"] = "fp64"
    splits_batch: bool = False
    ramp: bool = False
    clip: float = 1e9
    compiled: bool = False
    features: tuple[str, ...] = ()
    kinds: bool = False
    texts: bool = False


def _batch(step: int, rows: int, texts: bool) -> Batch:
    """What all ranks read together."""
    plain = Batch.next_tokens(batch_of(CHILD, step, rows))
    return uneven(plain, step) if texts else plain


@cache
def _start(ramp: bool, features: tuple[str, ...], kinds: bool) -> TrainingState:
    """The state that a case begins with, whole."""
    update: dict[str, Any] = dict.fromkeys(features, True)
    if kinds:
        update |= {"sliding_window": 5, "sliding_layers": (1,), "nope_layers": (1,)}
    parent, child = (model.model_copy(update=update) for model in (PARENT, CHILD))
    if not ramp:
        return trained_state(child, 2)
    grown = grow(trained_state(parent, 2), child, ramp=8, seed=1)
    return replace(grown, step=grown.step + 3)


@cache
def _reference(
    dtype: str, ramp: bool, clip: float, features: tuple[str, ...], kinds: bool, texts: bool
) -> dict[str, Any]:
    """One process's gradients at equal weights, its losses, norms and what it ends with."""
    start = _start(ramp, features, kinds)
    learner = Learner(start, OPTIMIZER, _DTYPES[dtype])
    found: dict[str, Any] = {"losses": [], "norms": [], "ends": []}
    for step in range(start.step, start.step + STEPS):
        found["losses"].append(learner.accumulate(_batch(step, ROWS, texts)).item())
        gradients = {s.name: s.gradient.clone() for s in learner.engine.shards}
        found.setdefault("gradients", gradients)
        found["norms"].append(learner.clip(clip).item())
        learner.update(step, 1.0)
        learner.move(step + 1)
    found["ends"] = learner.tensors()
    found["evaluation"] = learner.engine.loss_sum(_batch(99, 5, texts))
    return found


def compare(case: Case) -> dict[str, float]:
    """The largest relative differences from one process: of gradients, of values after three
    steps (weights and both moments), of losses and norms, and of an evaluation; and how many parts
    of tensors are then not the same, to the last bit, on all ranks that hold them."""
    rank = dist.get_rank()
    if case.compiled:
        torch._dynamo.reset()  # what was compiled before is on disk only
    mesh = build_mesh(case.layout, rank, torch.device("cpu"))
    share = ROWS // case.layout.dp
    training = TrainingConfig(
        steps=1,
        global_batch=ROWS,
        micro_batch=share // max(case.layout.stages, 2 if case.splits_batch else 1),
        dtype=case.dtype,
        compile=case.compiled,
    )
    start = _start(case.ramp, case.features, case.kinds)
    recipe = Recipe(case.parallel, training, _DTYPES[case.dtype])
    engine = ManyRanks(start.model, mesh, recipe)
    held = regions(case.layout, start.model, rank)
    learner = Learner(_part(start, held), OPTIMIZER, engine=engine)
    expected = _reference(case.dtype, case.ramp, case.clip, case.features, case.kinds, case.texts)
    worst = dict.fromkeys(("gradients", "values", "losses", "evaluation"), 0.0)

    def note(kind: str, found: torch.Tensor, whole: torch.Tensor, region: Region) -> None:
        # Of the whole tensor's norm: a rank's part of it may be next to nothing.
        error = (found - whole[region]).norm() / whole.norm()
        worst[kind] = max(worst[kind], error.item())

    for index in range(STEPS):
        step = start.step + index
        batch = _batch(step, ROWS, case.texts).split(share)[engine.data_rank]
        loss = learner.accumulate(batch).item()
        for shard in engine.shards if index == 0 else ():
            whole = expected["gradients"][shard.name]
            note("gradients", shard.held(shard.gradient), whole, shard.region)
        norm = learner.clip(case.clip).item()
        learner.update(step, 1.0)
        learner.move(step + 1)
        for found, right in ((loss, expected["losses"]), (norm, expected["norms"])):
            worst["losses"] = max(worst["losses"], abs(found / right[index] - 1))
    for ends, right in zip(learner.tensors(), expected["ends"], strict=True):
        for shard in engine.shards:
            note("values", ends[shard.name], right[shard.name], shard.region)
    worst["apart"] = _apart(learner)
    evaluation = engine.loss_sum(_batch(99, 5, case.texts))
    worst["evaluation"] = abs(evaluation / expected["evaluation"] - 1)
    return worst


def _apart(learner: Learner) -> int:
    """Of what several ranks hold, replicas and both ends of a tie, how much they differ in."""
    regions = {shard.name: str(shard.region) for shard in learner.engine.shards}
    mine = {
        (kind, name, regions[name]): hashlib.sha256(tensor.numpy().tobytes()).hexdigest()
        for kind, tensors in enumerate(learner.tensors())
        for name, tensor in tensors.items()
    }
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, mine)
    digests: dict[Any, set[str]] = {}
    for each in found:
        for part, digest in each.items():
            digests.setdefault(part, set()).add(digest)
    return sum(len(different) > 1 for different in digests.values())


def _part(state: TrainingState, held: dict[str, Region]) -> TrainingState:
    weights, first, second = (
        {name: tensors[name][region] for name, region in held.items()}
        for tensors in (state.weights, state.exp_avg, state.exp_avg_sq)
    )
    return replace(state, weights=weights, exp_avg=first, exp_avg_sq=second, regions=held)
