"""A run under way: what hooks see."""

from dataclasses import dataclass
from pathlib import Path

from teleflm.config.run import RunConfig
from teleflm.data.loader import Loader
from teleflm.data.mixture import Mixture
from teleflm.growth.state import TrainingState
from teleflm.model.flops import flops_per_token
from teleflm.parallel.ranks import Ranks
from teleflm.training.learner import Learner


@dataclass(frozen=True)
class StepRecord:
    """A line of `metrics.jsonl`: `step` counts updates done, over the whole lineage.

    `tokens` and `flops` are the lineage's totals, `loss` nats a token before the update, `lr` the
    vector-like rate of it, `ramp` the mask progress, `mfu` model FLOPs over the device's bf16 peak.
    """

    step: int
    tokens: int
    flops: int
    loss: float
    grad_norm: float
    lr: float
    ramp: float
    tokens_per_second: float
    mfu: float | None


class Run:
    """A run's parts and its progress. The loop moves `step`; everything else follows from it."""

    def __init__(
        self,
        config: RunConfig,
        state: TrainingState,
        learner: Learner,
        mixture: Mixture,
        tokenizer: Path | None,
        ranks: Ranks,
    ) -> None:
        self.config = config
        self.learner = learner
        self.mixture = mixture
        self.tokenizer = tokenizer
        self.ranks = ranks
        self.directory = Path(config.run_dir)
        self.lineage = state.lineage
        self.start = state.lineage[-1]
        self.step = state.step
        self.first_step = self.start.step
        self.last_step = self.first_step + config.training.steps
        self.loader = Loader(
            mixture.domains,
            seed=config.seed,
            sequence_length=config.data.sequence_length,
            global_batch=config.training.global_batch,
            vocab_size=state.model.vocab_size,
            first_step=self.first_step,
            first_sequence=self.start.sequences,
        )

    @property
    def own_steps(self) -> int:
        """Steps of this run so far."""
        return self.step - self.first_step

    @property
    def flops_per_step(self) -> int:
        """Model FLOPs of one step."""
        length = self.config.data.sequence_length
        return flops_per_token(self.learner.model, length) * self.config.tokens_per_step

    @property
    def tokens(self) -> int:
        """Tokens predicted so far, over the whole lineage."""
        return self.start.tokens + self.own_steps * self.config.tokens_per_step

    @property
    def flops(self) -> int:
        """Model FLOPs so far, over the whole lineage."""
        return self.start.flops + self.own_steps * self.flops_per_step

    def state(self) -> TrainingState:
        """The state as it stands; its tensors are views, so save them before the next step."""
        weights, exp_avg, exp_avg_sq = self.learner.tensors()
        return TrainingState(
            model=self.learner.model,
            weights=weights,
            exp_avg=exp_avg,
            exp_avg_sq=exp_avg_sq,
            adam_steps=self.learner.adam_steps,
            step=self.step,
            tokens=self.tokens,
            sequences=self.start.sequences + self.own_steps * self.config.training.global_batch,
            flops=self.flops,
            lineage=self.lineage,
            regions=self.learner.engine.regions,
        )
