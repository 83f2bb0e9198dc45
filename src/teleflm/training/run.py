"""A run under way: what hooks see."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from teleflm.checkpoint.save import TOKENIZER
from teleflm.config.run import RunConfig
from teleflm.data.identity import Source
from teleflm.data.loader import Loader
from teleflm.data.mixture import Mixture
from teleflm.growth.event import Event, run_start
from teleflm.growth.state import TrainingState
from teleflm.model.flops import flops_per_token
from teleflm.parallel.ranks import Ranks
from teleflm.training.faults import Fault
from teleflm.training.learner import Learner


@dataclass(frozen=True)
class StepRecord:
    """A line of `metrics.jsonl`: `step` counts steps done, over the whole lineage.

    `tokens` and `flops` are the lineage's totals, `loss` nats a token before the update, `lr` the
    vector-like rate of it, `ramp` the mask progress, `mfu` model FLOPs over the device's peak in
    the run's precision.
    `fault` is what was wrong with the step, `skipped` whether its update was not taken for that. A
    loss or gradient norm that is not finite is None.
    """

    step: int
    tokens: int
    flops: int
    loss: float | None
    grad_norm: float | None
    lr: float
    ramp: float
    tokens_per_second: float
    mfu: float
    fault: Fault | None
    skipped: bool


class Run:
    """A run's parts and its progress. The loop moves `step` and adds to `lineage`; everything else
    follows from them."""

    def __init__(
        self,
        config: RunConfig,
        state: TrainingState,
        learner: Learner,
        mixture: Mixture,
        sources: dict[str, Source],
        ranks: Ranks,
    ) -> None:
        self.config = config
        self.learner = learner
        self.mixture = mixture
        self.sources = sources
        self.ranks = ranks
        self.directory = Path(config.run_dir)
        self.lineage = state.lineage
        self.step = state.step
        self.first_step = run_start(state.lineage).step
        self.last_step = self.first_step + config.training.steps
        read = state.lineage[-1].sequences
        if mixture.trains_on_chats:
            # Their epochs begin with the run: begun within one of what its parent has read, some
            # would be read twice before others are once.
            read -= run_start(state.lineage).sequences
        self.loader = Loader(
            mixture.domains,
            seed=config.seed,
            sequence_length=config.data.sequence_length,
            document_mask=config.data.document_mask,
            global_batch=config.training.global_batch,
            vocab_size=state.model.vocab_size,
            first_step=state.lineage[-1].step,
            first_sequence=read,
        )

    @property
    def tokenizer(self) -> Path | None:
        """The folder of what belongs to its text, None where nothing does."""
        folder = self.directory / TOKENIZER
        return folder if folder.is_dir() else None

    @property
    def own_steps(self) -> int:
        """Steps of this run so far."""
        return self.step - self.first_step

    def is_scheduled(self, step: int) -> bool:
        """Whether a checkpoint is due at `step`."""
        return (step - self.first_step) % self.config.checkpoint.every == 0

    @property
    def flops_per_step(self) -> int:
        """Model FLOPs of one step."""
        length = self.config.data.sequence_length
        return flops_per_token(self.learner.model, length) * self.config.tokens_per_step

    @property
    def tokens(self) -> int:
        """Tokens predicted so far, over the whole lineage, in skipped steps too."""
        return self.lineage[-1].tokens + self._steps_since * self.config.tokens_per_step

    @property
    def sequences(self) -> int:
        """Sequences read so far, over the whole lineage; the next batch begins there."""
        return self.lineage[-1].sequences + self._steps_since * self.config.training.global_batch

    @property
    def flops(self) -> int:
        """Model FLOPs so far, over the whole lineage, in skipped steps too."""
        return self.lineage[-1].flops + self._steps_since * self.flops_per_step

    @property
    def _steps_since(self) -> int:
        """Steps since the newest event, from whose counts the present ones follow."""
        return self.step - self.lineage[-1].step

    def event(
        self, operator: Literal["skip", "roll_back"], step: int, batches: int, reason: str
    ) -> Event:
        """What just happened to the newest `batches`; the lineage goes on from `step`."""
        model = self.learner.model
        return Event(
            operator=operator,
            source=model,
            to=model,
            step=step,
            tokens=self.tokens,
            sequences=self.sequences,
            flops=self.flops,
            batches=batches,
            reason=reason,
        )

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
            sequences=self.sequences,
            flops=self.flops,
            lineage=self.lineage,
            regions=self.learner.engine.regions,
        )
