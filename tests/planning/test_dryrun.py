"""What the dry run of one process says is what the process does."""

from contextlib import nullcontext
from typing import Any, get_args

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from teleflm.config.run import Recomputation, RunConfig, resolve_run
from teleflm.errors import ConfigError
from teleflm.model.axes import parameter_count
from teleflm.model.batch import Batch
from teleflm.parallel.choose import layout_for
from teleflm.planning.counting import Counting
from teleflm.planning.dryrun import counted_step, dry_run, empty_state, made_up_batch
from teleflm.training.learner import Learner
from teleflm.training.prepare import engine_of
from tests.distributed.stepping import filled_state
from tests.distributed.test_dryrun import run_of

SMALLER = {
    "vocab_size": 1000,
    "hidden_size": 48,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
    "head_dim": 8,
    "max_position_embeddings": 64,
}


def config_of(dtype: str = "fp32", recomputation: Recomputation = "none", **more: Any) -> RunConfig:
    data = run_of({"activation_checkpointing": recomputation}, **more)
    data["training"] |= {"dtype": dtype, "global_batch": 4, "micro_batch": 2}
    return resolve_run(data, "the test")


def batch_of(config: RunConfig) -> Batch:
    shape = config.training.global_batch, config.data.sequence_length + 1
    return made_up_batch(config, torch.randint(config.model.vocab_size, shape))


def real_step(config: RunConfig) -> Counting:
    state = filled_state(empty_state(config, layout_for(config, 1), 0))
    return counted_step(config, None, state, batch_of(config), nullcontext())[0]


@pytest.mark.parametrize("recomputation", get_args(Recomputation))
@pytest.mark.parametrize("dtype", ["bf16", "fp32", "fp64"])
@pytest.mark.parametrize("grows", [False, True])
def test_one_process(dtype: str, grows: bool, recomputation: Recomputation) -> None:
    more: dict[str, Any] = {}
    if grows:
        more = {"growth": {"to": run_of({})["model"], "ramp": 9}, "model": SMALLER}
    config = config_of(dtype, recomputation, **more)
    dry, real = dry_run(config, 1, 0, "cpu"), real_step(config)
    assert dry.parameters == parameter_count(config.final_model)
    assert dry.flops == real.flops
    assert dry.collectives == real.collectives == {}
    assert dry.peak == pytest.approx(real.peak, rel=0.01)


@pytest.mark.parametrize("recomputation", get_args(Recomputation))
def test_texts_that_do_not_see_each_other(recomputation: Recomputation) -> None:
    data = {"path": "none", "sequence_length": 32, "document_mask": True}
    config = config_of("fp32", recomputation, data=data)
    dry, real = dry_run(config, 1, 0, "cpu"), real_step(config)
    assert dry.flops == real.flops
    assert dry.peak == pytest.approx(real.peak, rel=0.01)
    # A step of rows that are one text each: the same products, by other kernels.
    plain = dry_run(config_of("fp32", recomputation, data={**data, "document_mask": False}), 1, 0)
    assert sum(dry.flops.values()) == sum(plain.flops.values())
    on_gpu = dry_run(config_of("bf16", recomputation, data=data), 1, 0)
    assert on_gpu.flops["_varlen_attn"] > 0
    assert sum(on_gpu.flops.values()) == sum(plain.flops.values())


def test_what_is_computed_again_is_not_kept() -> None:
    none, selective, full = (real_step(config_of("fp32", kind)) for kind in get_args(Recomputation))
    assert none.peak > selective.peak > full.peak
    # Of a block nothing is left but its input: the model has eight, 0.7 MB each.
    assert none.peak - full.peak > 6 * 0.7e6
    assert full.flops["mm"] > selective.flops["mm"] == none.flops["mm"]


def test_flops_are_those_of_pytorch() -> None:
    # It counts the CPU's flash attention as nothing, so attention is done by its definition.
    config = config_of()
    state = filled_state(empty_state(config, layout_for(config, 1), 0))
    learner = Learner(
        state, config.optimizer, engine=engine_of(config, state.model, None, torch.device("cpu"))
    )
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        learner.accumulate(batch_of(config))
    assert sum(dry_run(config, 1, 0).flops.values()) == counter.get_total_flops()


def test_it_follows_what_training_does(monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of()
    before = dry_run(config, 1, 0)
    update = Learner.update

    def update_and_more(learner: Learner, *how: Any) -> None:
        learner.more = torch.ones(64, 32) @ torch.ones(32, 1 << 16)  # type: ignore[attr-defined]
        update(learner, *how)

    monkeypatch.setattr(Learner, "update", update_and_more)
    after = dry_run(config, 1, 0)
    assert after.flops["mm"] == before.flops["mm"] + (64 * 32 << 17)
    assert after.peak > before.peak


def test_many_micro_batches_are_not_all_run() -> None:
    config = config_of()
    few = dry_run(config, 1, 0)
    training = config.training.model_copy(update={"global_batch": 2000})
    many = dry_run(config.model_copy(update={"training": training}), 1, 0)
    assert (few.micro_batches, few.run) == (2, 2)
    assert many.micro_batches == 1000 and many.run < 5
    assert sum(many.flops.values()) == 500 * sum(few.flops.values())
    # The batch itself is larger, and nothing else.
    assert many.peak - few.peak == (2000 - 4) * (64 + 64) * 8


@pytest.mark.parametrize("rank", [-1, 8])
def test_a_rank_outside_the_world_is_named(rank: int) -> None:
    with pytest.raises(ConfigError, match=f"rank {rank}: the 8 ranks are 0 to 7"):
        dry_run(resolve_run(run_of({"tp": 2}), "the test"), 8, rank)
