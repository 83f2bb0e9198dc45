"""The dry run of a rank is the rank's real step: the same bytes, FLOPs and collectives."""

from collections.abc import Mapping
from typing import Any

import pytest

from teleflm.config.run import resolve_run
from teleflm.parallel.choose import layout_for
from teleflm.parallel.in_flight import LETS_GO
from teleflm.planning.closed import closed_form
from teleflm.planning.counting import Traffic
from teleflm.planning.dryrun import dry_runs
from tests.distributed.stepping import real_step
from tests.distributed.world import World

MODEL = {
    "vocab_size": 1000,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 8,
    "max_position_embeddings": 64,
}
LAYOUTS: dict[str, dict[str, Any]] = {
    "tp": {"tp": 4, "dp_replicate": 2},
    "pp": {"pp": 8},
    "dp": {},
    "dp-replicate": {"dp_replicate": 8},
    "tp-pp": {"tp": 4, "pp": 2},
    "tp-dp": {"tp": 2, "activation_checkpointing": "full"},
    "pp-dp": {"pp": 4, "activation_checkpointing": "selective"},
    "tp-pp-dp": {"tp": 2, "pp": 2},
    "interleaved": {"tp": 2, "pp": 4, "schedule": "interleaved"},
    "zero-bubble": {"pp": 4, "schedule": "zero_bubble"},
    "narrow": {"pp": 2, "gather_dtype": "bf16", "reduce_dtype": "bf16"},
}
# What happens in a block takes Python long where ranks share one: there as many layers as tell a
# stage's first and last from another, and sequences as many as let the dry run leave out
# micro-batches where it would of more.
SHORTER = {
    "tp": (4, 10),
    "tp-pp": (6, 6),
    "tp-dp": (4, 8),
    "tp-pp-dp": (6, 12),
    "interleaved": (8, 8),
}


def run_of(parallel: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A RUN of 16 sequences a step."""
    return {
        "run_dir": "run",
        "model": MODEL,
        "data": {"path": "store", "sequence_length": 64},
        "training": {"steps": 1, "global_batch": 16, "micro_batch": 1, "dtype": "bf16"},
        "parallel": parallel,
        **more,
    }


# Of each layout a first, a middle and a last stage; a dry run has a process of its own.
RANKS = (0, 3, 7)


def of_a_step(first: dict[str, Traffic], dry: Mapping[str, Traffic]) -> dict[str, Traffic]:
    """The messages of a real first step without those by which PyTorch, from 2.15 on, connects a
    pipeline's ranks before it, an int32 each; a world without peers has none to connect."""
    none = Traffic(0, 0)
    counted = {}
    for kind, traffic in first.items():
        connecting = traffic.count - dry.get(kind, none).count
        if LETS_GO and kind.startswith("pp.") and connecting > 0:
            traffic = Traffic(traffic.count - connecting, traffic.bytes - 4 * connecting)
        if traffic != none:
            counted[kind] = traffic
    return counted


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_dry_run_is_the_real_step(eight: World, name: str) -> None:
    data = run_of(LAYOUTS[name])
    if name in SHORTER:
        layers, sequences = SHORTER[name]
        data["model"] = {**MODEL, "num_hidden_layers": layers}
        data["training"]["global_batch"] = sequences
    config = resolve_run(data, "the test")
    real_steps = eight.run(real_step, data)
    for dry in dry_runs(config, 8, RANKS, "cpu"):
        real = real_steps[dry.rank]
        assert dry.kept == real["kept"]
        assert dry.flops == real["flops"]
        assert dry.collectives == of_a_step(real["collectives"], dry.collectives)
        assert dry.peak == pytest.approx(real["peak"], rel=0.05)
    layout = layout_for(config, 8)
    for rank in range(0, 8, 8 // layout.pp):
        closed = closed_form(config, layout, rank * layout.pp // 8, "cpu")
        assert closed.total == pytest.approx(real_steps[rank]["peak"], rel=0.05)


def test_as_on_a_gpu_it_computes_the_same() -> None:
    # There norms are other kernels, and recomputation has to find what the forward pass kept.
    data = run_of({"tp": 2, "pp": 2, "activation_checkpointing": "full"})
    data["model"] = {**MODEL, "num_hidden_layers": 4}
    data["training"]["global_batch"] = 4
    config = resolve_run(data, "the test")
    (gpu,), (cpu,) = (list(dry_runs(config, 8, [1], device)) for device in ("cuda", "cpu"))
    assert gpu.flops == cpu.flops and gpu.collectives == cpu.collectives
