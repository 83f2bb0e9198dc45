"""How states are made live to be measured: in this process, by many ranks, or to be read only."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from teleflm.config.model import ModelConfig
from teleflm.config.run import OptimizerConfig, ParallelConfig, TrainingConfig
from teleflm.growth.fold import folded
from teleflm.growth.state import LazyState
from teleflm.model.network import TeleFLM
from teleflm.model.streamed import streamed_network
from teleflm.parallel.choose import Job
from teleflm.parallel.layout import Layout, regions
from teleflm.parallel.many import ManyRanks
from teleflm.parallel.mesh import Mesh
from teleflm.parallel.ranks import Ranks
from teleflm.parallel.recipe import Recipe
from teleflm.training.learner import Learner

STEPS = 30
# Two on each rank: whatever the layout, they divide by dp and are enough for a pipeline.
ROWS = 2
_POSITIONS = 32


@dataclass(frozen=True)
class Bench:
    """What a certificate is measured with; every rank does the same with it.

    Attributes:
        ranks: those that measure it together.
        layout: theirs.
        network: of a state, for reading token ids in a precision.
        learner: of a state, in float64; None where there is no room to train.
        document_mask: whether it trains on texts that do not see each other.
    """

    ranks: Ranks
    layout: Layout
    network: Callable[[LazyState, torch.dtype], TeleFLM]
    learner: Callable[[LazyState], Learner] | None
    document_mask: bool = False


def in_memory(config: OptimizerConfig) -> Bench:
    """This process by itself; the networks are the live ones, masks and all."""

    def learner(state: LazyState, dtype: torch.dtype = torch.float64) -> Learner:
        return Learner(state.in_memory(), config, dtype)

    return Bench(
        Ranks(alone=True), Layout(), lambda state, dtype: learner(state, dtype).network, learner
    )


def streamed(ranks: Ranks, layout: Layout) -> Bench:
    """Weights are read as they are needed, each by one of the ranks; nothing is trained. A state
    inside a ramp is the ordinary model that equals it."""

    def network(state: LazyState, dtype: torch.dtype) -> TeleFLM:
        ordinary = folded(state)
        return streamed_network(ordinary.model, ordinary.weight, dtype, ranks)

    return Bench(ranks, layout, network, None)


def on_mesh(ranks: Ranks, mesh: Mesh, job: Job, config: OptimizerConfig) -> Bench:
    """Networks are streamed; what learns is laid out on the mesh as in a run."""
    recipe = Recipe(job.parallel, job.training, torch.float64)

    def learner(state: LazyState) -> Learner:
        held = regions(mesh.layout, state.model, mesh.rank)
        mine = ranks.agreed(lambda: state.in_memory(held))
        return Learner(mine, config, engine=ManyRanks(state.model, mesh, recipe))

    return replace(streamed(ranks, mesh.layout), learner=learner)


def positions(parent: ModelConfig, child: ModelConfig) -> int:
    """How many tokens of a sequence are predicted."""
    longest = min(parent.max_position_embeddings, child.max_position_embeddings)
    return min(_POSITIONS, longest - 1)


def job_of(parent: ModelConfig, child: ModelConfig, parallel: ParallelConfig, ranks: Ranks) -> Job:
    """The trajectory, to be laid out on the ranks."""
    training = TrainingConfig(steps=STEPS, global_batch=ROWS * ranks.count, dtype="fp64")
    return Job({"parent": parent, "child": child}, positions(parent, child), training, parallel)
