"""A network that learns: weights, AdamW and growth masks, set for any step.

Training and the growth certificate both go through it, so that what is certified is what runs.
"""

import torch
from torch import Tensor, nn

from teleflm.config.run import OptimizerConfig
from teleflm.growth.event import last_growth
from teleflm.growth.masks import Masks
from teleflm.growth.ramp import Ramp, ramp_at
from teleflm.growth.state import TrainingState
from teleflm.model.init import build_model
from teleflm.model.mup import build_optimizer, set_rates
from teleflm.training.fresh import FreshMoments


class Learner:
    """A training state made live.

    Args:
        state: what to go on from.
        config: the optimizer's hyperparameters.
        dtype: of the master weights and moments: float32, or float64.
        device: where to compute.
    """

    def __init__(
        self,
        state: TrainingState,
        config: OptimizerConfig,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        self.model = state.model
        self.lineage = state.lineage
        self.config = config
        self.adam_steps = state.adam_steps
        self.network = build_model(state.model, state.weights, dtype).to(device)
        self.optimizer = build_optimizer(self.network, config)
        self._load_moments(state)
        event, ramp = last_growth(state.lineage), self.ramp(state.step)
        is_open = event is not None and ramp.progress < 1.0
        self._masks = Masks(self.network, event) if event is not None and is_open else None
        self._fresh = FreshMoments(self.network, state.lineage, state.step)
        self.move(state.step)

    def _load_moments(self, state: TrainingState) -> None:
        for name, weight in self.network.named_parameters():
            self.optimizer.state[weight] = {
                # The fused kernel wants it where the weight is.
                "step": torch.tensor(float(state.adam_steps), device=weight.device),
                "exp_avg": state.exp_avg[name].to(weight, copy=True),
                "exp_avg_sq": state.exp_avg_sq[name].to(weight, copy=True),
            }

    def ramp(self, step: int) -> Ramp:
        """The ramp's numbers at `step`."""
        return ramp_at(self.model, self.lineage, step)

    def move(self, step: int) -> None:
        """Set masks and multipliers to `step`; past the ramp the masks are gone for good."""
        ramp = self.ramp(step)
        self.network.set_multipliers(ramp.input_multiplier, ramp.logit_multiplier)
        if self._masks is None:
            return
        if ramp.progress < 1.0:
            self._masks.move(ramp)
        else:
            self._masks.remove()
            self._masks = None

    def clip(self, largest: float) -> Tensor:
        """Clip the gradients at hand to the global norm `largest`; the norm before, 0-dim."""
        return nn.utils.clip_grad_norm_(self.network.parameters(), largest)

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

    def tensors(self) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
        """Weights and both moments as they stand: views, not copies."""
        named = dict(self.network.named_parameters())
        moments = {name: self.optimizer.state[weight] for name, weight in named.items()}
        return (
            {name: weight.detach() for name, weight in named.items()},
            {name: moment["exp_avg"] for name, moment in moments.items()},
            {name: moment["exp_avg_sq"] for name, moment in moments.items()},
        )
