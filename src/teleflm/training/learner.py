"""A network that learns: weights, AdamW and growth masks, set for any step.

Training and the growth certificate both go through it, so that what is certified is what runs.
"""

import torch
from torch import Tensor, nn

from teleflm.config.run import OptimizerConfig
from teleflm.errors import DataError
from teleflm.growth.event import last_masks
from teleflm.growth.masks import Masks
from teleflm.growth.operators import clone_factors
from teleflm.growth.ramp import Ramp, ramp_at
from teleflm.growth.state import Tensors, TrainingState
from teleflm.model.batch import Batch
from teleflm.model.mup import build_optimizer, set_rates
from teleflm.model.network import TeleFLM
from teleflm.parallel.engine import Engine, OneProcess
from teleflm.training.fresh import FreshMoments


class Learner:
    """A training state made live.

    Args:
        state: what to go on from; of the engine's shards, where it has regions.
        config: the optimizer's hyperparameters.
        dtype: of the master weights and moments: float32, or float64.
        engine: what computes; one process on the CPU, in `dtype`, unless given.
    """

    def __init__(
        self,
        state: TrainingState,
        config: OptimizerConfig,
        dtype: torch.dtype = torch.float32,
        engine: Engine | None = None,
    ) -> None:
        self.model = state.model
        self.lineage = state.lineage
        self.config = config
        self.adam_steps = state.adam_steps
        if engine is None:
            engine = OneProcess(state.model, dtype, torch.device("cpu"), precision="fp32")
        self.engine: Engine = engine
        factors = [clone_factors(state.lineage, shard.name) for shard in engine.shards]
        self._norm_weights = [weight for _, weight in factors]
        self.optimizer = build_optimizer(
            [
                (shard.name, shard.local, eps)
                for shard, (eps, _) in zip(engine.shards, factors, strict=True)
            ],
            config,
        )
        self._load(state)
        event, ramp = last_masks(state.lineage), self.ramp(state.step)
        is_open = event is not None and ramp.progress < 1.0
        self._masks = None
        if event is not None and is_open:
            like = engine.shards[0].local
            self._masks = Masks(engine.networks, event, like.detach(), engine.spread)
        self._fresh = FreshMoments(engine.shards, state.lineage, state.step)
        self.move(state.step)

    @property
    def network(self) -> TeleFLM:
        """The whole network of one process."""
        (network,) = self.engine.networks
        return network

    @torch.no_grad()
    def _load(self, state: TrainingState) -> None:
        for shard in self.engine.shards:
            local = shard.local
            local.zero_()  # the padding of the vocabulary
            shard.held(local).copy_(state.weights[shard.name])
            moments = {}
            for kind, stored in (("exp_avg", state.exp_avg), ("exp_avg_sq", state.exp_avg_sq)):
                moments[kind] = torch.zeros_like(local)
                shard.held(moments[kind]).copy_(stored[shard.name])
            # The fused kernel wants it where the weight is.
            count = torch.tensor(float(state.adam_steps), device=local.device)
            self.optimizer.state[local] = {"step": count, **moments}

    def ramp(self, step: int) -> Ramp:
        """The ramp's numbers at `step`."""
        return ramp_at(self.model, self.lineage, step)

    def move(self, step: int) -> None:
        """Set masks and multipliers to `step`; past the ramp the masks are gone for good."""
        self._step = step
        ramp = self.ramp(step)
        for network in self.engine.networks:
            network.set_multipliers(ramp.input_multiplier, ramp.logit_multiplier)
        if self._masks is None:
            return
        if ramp.progress < 1.0:
            self._masks.move(ramp)
        else:
            self._masks.remove()
            self._masks = None

    def accumulate(self, batch: Batch) -> Tensor:
        """Add the gradient of a global batch's mean loss.

        The mean is over the targets of all ranks that count, which differ in number where rows
        hold several texts.

        Args:
            batch: this rank's share of it.

        Returns:
            The mean loss in nats a token over all ranks, 0-dim float64 without a graph.

        Raises:
            DataError: none of them counts, on all ranks alike.
        """
        predictions = batch.targets.numel() * self.engine.data_ranks
        if batch.starts is not None:
            predictions = self.engine.counted(batch)
        if not predictions:
            raise DataError(
                f"step {self._step}: none of the global batch's {batch.targets.numel():,} targets "
                "a rank counts, so there is nothing to learn from; look at the data with `teleflm "
                "data inspect`, or raise training.global_batch"
            )
        return self.engine.accumulate(batch, predictions)

    def gradient_norm(self) -> Tensor:
        """The norm of the gradients at hand, 0-dim; clones count as what they are clones of."""
        return self.engine.gradient_norm(self._norm_weights)

    def clip(self, largest: float) -> Tensor:
        """Clip the gradients at hand to the global norm `largest`; the norm before, 0-dim."""
        norm = self.gradient_norm()
        nn.utils.clip_grads_with_norm_([s.local for s in self.engine.shards], largest, norm)
        return norm

    def update(self, step: int, factor: float) -> None:
        """Take AdamW's step from `step` to the next with the gradients at hand, clipped before.

        Args:
            step: the step whose masks the gradients belong to.
            factor: the schedule's share of the peak learning rate.
        """
        set_rates(self.optimizer, self.config, factor, self.ramp(step).mup_ratio)
        self._fresh.seed(self.optimizer, self.adam_steps, step)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.adam_steps += 1

    def skip(self) -> None:
        """Take no step: the gradients at hand are dropped, and all else stays as it is."""
        self.optimizer.zero_grad()

    def tensors(self) -> tuple[Tensors, Tensors, Tensors]:
        """Weights and both moments of the engine's shards as they stand: views, not copies."""
        moments = [self.optimizer.state[shard.local] for shard in self.engine.shards]
        pairs = list(zip(self.engine.shards, moments, strict=True))
        return (
            {shard.name: shard.held(shard.local.detach()) for shard, _ in pairs},
            {shard.name: shard.held(moment["exp_avg"]) for shard, moment in pairs},
            {shard.name: shard.held(moment["exp_avg_sq"]) for shard, moment in pairs},
        )
