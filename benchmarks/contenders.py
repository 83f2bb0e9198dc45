"""Training steps to be timed: ours, and one of `transformers.LlamaForCausalLM`."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from teleflm.config.huggingface import to_huggingface
from teleflm.config.model import ModelConfig
from teleflm.config.resolve import model_fields, resolve_model
from teleflm.config.run import (
    DataConfig,
    GrowthConfig,
    OptimizerConfig,
    Precision,
    RunConfig,
    SpikesConfig,
    TrainingConfig,
)
from teleflm.data.mixture import Mixture
from teleflm.growth.state import TrainingState
from teleflm.model.batch import Batch
from teleflm.parallel.engine import Engine, OneProcess
from teleflm.parallel.ranks import Ranks
from teleflm.training.faults import Watch
from teleflm.training.learner import Learner
from teleflm.training.start import start_state
from teleflm.training.step import train_step

OPTIMIZER = OptimizerConfig(learning_rate=1e-4, matrix_learning_rate=1e-4, weight_decay=0.1)

_RAMP = 1000
_LOGIT_STD = 4.0


def shape(spec: str, vocab_size: int, sequence_length: int) -> ModelConfig:
    """The model of a preset, file or folder, with `vocab_size` where that leaves it open.

    Its multipliers are set to 1, which Llama has none of; they cost nothing either way.
    """
    fields = {"vocab_size": vocab_size, **model_fields(spec)}
    model = resolve_model({**fields, "max_position_embeddings": sequence_length})
    return model.model_copy(
        update={"input_mult": 1.0, "output_mult": model.hidden_size / model.mup_base_width}
    )


def fresh_state(model: ModelConfig, seed: int = 0) -> TrainingState:
    """The state that a run of `model` starts from, but for a sharper head.

    An ordinary init predicts every token alike, and then any work would have the same loss.
    """
    state = start_state(_run(model, seed, None), Mixture([], None, None), Ranks())
    head = state.weights["lm_head.weight"]
    head *= _LOGIT_STD / (model.vector_init_std * model.hidden_size**0.5)
    return state


def state_in_ramp(parent: ModelConfig, child: ModelConfig) -> TrainingState:
    """`parent` grown to `child`, half-way through its ramp."""
    growth = GrowthConfig(to=child, place="even", ramp=_RAMP)
    state = start_state(_run(parent, 0, growth), Mixture([], None, None), Ranks())
    return replace(state, step=_RAMP // 2)


def _run(model: ModelConfig, seed: int, growth: GrowthConfig | None) -> RunConfig:
    return RunConfig(
        run_dir="unused",
        model=model,
        seed=seed,
        data=DataConfig(path="unused", sequence_length=1),
        training=TrainingConfig(steps=1, global_batch=1),
        growth=growth,
    )


class Ours:
    """The project's training step, as its loop takes it: in one process, unless on an `engine`."""

    def __init__(
        self,
        state: TrainingState,
        batch: Tensor,
        micro_batch: int,
        *,
        dtype: Precision = "bf16",
        compile: bool = False,
        engine: Engine | None = None,
        starts: Tensor | None = None,
    ) -> None:
        engine = engine or OneProcess(
            state.model,
            torch.float32,
            batch.device,
            precision=dtype,
            micro_batch=micro_batch,
            compiled=compile,
        )
        self._learner = Learner(state, OPTIMIZER, engine=engine)
        self._watch = Watch(SpikesConfig())
        self._batch, self._step = Batch.next_tokens(batch, starts), state.step

    def __call__(self) -> float:
        """Take a step; its loss."""
        result = train_step(
            self._learner,
            self._batch,
            step=self._step,
            factor=1.0,
            clip=OPTIMIZER.clip,
            judge=self._watch.judge,
        )
        self._step += 1
        return result.loss


class HuggingFaceLlama:
    """The same step with transformers: its autocast, SDPA, loss and clipping, and fused AdamW."""

    def __init__(
        self,
        state: TrainingState,
        batch: Tensor,
        micro_batch: int,
        *,
        dtype: Precision = "bf16",
        compile: bool = False,
    ) -> None:
        from transformers import LlamaConfig, LlamaForCausalLM

        fields = {**to_huggingface(state.model, "llama"), "attn_implementation": "sdpa"}
        config = LlamaConfig(**fields)
        self._network = LlamaForCausalLM(config)
        self._network.load_state_dict(state.weights)
        nn.Module.to(self._network, batch.device).train()
        self._batch, self._micro_batch, self._dtype = batch, micro_batch, dtype
        self._optimizer = torch.optim.AdamW(
            self._network.parameters(),
            lr=OPTIMIZER.learning_rate,
            betas=OPTIMIZER.betas,
            eps=OPTIMIZER.eps,
            weight_decay=OPTIMIZER.weight_decay,
            fused=True,
        )
        if compile:
            for block in self._network.model.layers:
                block.compile()

    def __call__(self) -> float:
        """Take a step; its loss."""
        parts = self._batch.split(self._micro_batch)
        total = torch.zeros((), device=self._batch.device)
        for rows in parts:
            # Shifted here, so that both sides predict the same tokens and no row loses one.
            targets = rows[:, 1:].contiguous()
            with torch.autocast(rows.device.type, torch.bfloat16, enabled=self._dtype == "bf16"):
                output = self._network(
                    input_ids=rows[:, :-1], labels=targets, shift_labels=targets, use_cache=False
                )
            loss = output.loss / len(parts)
            loss.backward()
            total += loss.detach()
        nn.utils.clip_grad_norm_(self._network.parameters(), OPTIMIZER.clip)
        self._optimizer.step()
        self._optimizer.zero_grad()
        return total.item()
