"""A dry run that does few passes counts what one that does them all counts."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from teleflm.config.run import RunConfig, resolve_run
from teleflm.planning.counting import Counting
from teleflm.planning.dryrun import dry_runs
from tests.distributed.test_dryrun import run_of

MODEL = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 64,
}
SMALLER = {"hidden_size": 48, "intermediate_size": 128, "num_attention_heads": 2}
FULL = {"activation_checkpointing": "full", "gather_dtype": "bf16"}
# Ranks, those that are run, layers, sequences of a step, `parallel`; those named so grow, the first
# as Tele-FLM-1T does. Micro-batches are more than are run, of one sequence.
CASES: dict[str, tuple[int, tuple[int, ...], int, int, dict[str, Any]]] = {
    "grows": (6, (0, 2, 4), 3, 10, {"tp": 2, "pp": 3, **FULL}),
    "sharded": (6, (0, 2, 4), 3, 20, {"pp": 3, "activation_checkpointing": "selective"}),
    "interleaved": (4, (1, 3), 4, 14, {"tp": 2, "pp": 2, "schedule": "interleaved"}),
    "grows-none": (2, (0,), 2, 8, {"pp": 2}),
    "zero-bubble": (2, (0, 1), 4, 14, {"pp": 2, "schedule": "zero_bubble"}),
}


def config_of(name: str) -> tuple[RunConfig, int, tuple[int, ...]]:
    ranks, which, layers, batch, parallel = CASES[name]
    model: dict[str, Any] = {**MODEL, "num_hidden_layers": layers}
    data = run_of(parallel, model=model)
    if name.startswith("grows"):
        data["model"] = {**model, **SMALLER}
        data["growth"] = {"to": model, "ramp": 9}
    data["training"]["global_batch"] = batch
    return resolve_run(data, "the test"), ranks, which


@pytest.mark.parametrize("name", CASES)
def test_every_figure_is_that_of_the_full_count(name: str) -> None:
    config, ranks, which = config_of(name)
    done = list(dry_runs(config, ranks, which))
    for few, every in zip(done, dry_runs(config, ranks, which, every=True), strict=True):
        assert few.run < every.run == every.micro_batches
        assert replace(few, run=every.run) == every


def test_a_part_that_is_repeated_counts_as_it_did() -> None:
    def part() -> torch.Tensor:
        return (torch.ones(8, 64) @ torch.ones(64, 4)).exp()

    with Counting({}) as counted:
        before = torch.zeros(10)
        first, work = counted.watch(part)
        assert (work.rise, work.left) == ((8 * 64 + 64 * 4 + 8 * 4) * 4, 8 * 4 * 4)
        assert (counted.live, counted.peak) == (40 + work.left, 40 + work.rise)
        again = counted.repeat(work, lambda: torch.empty(8, 4))
        assert (counted.live, counted.peak) == (40 + 2 * work.left, 40 + work.left + work.rise)
        assert counted.flops == {"mm": 2 * 2 * 8 * 64 * 4}
        del first, again
        assert counted.live == before.nbytes
