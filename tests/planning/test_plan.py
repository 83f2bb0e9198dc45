"""The plan of one layout, and the run that a model alone is planned as."""

import pytest

from teleflm.config.cluster import load_cluster
from teleflm.config.run import RunConfig
from teleflm.errors import ConfigError
from teleflm.parallel.layout import Layout
from teleflm.planning.closed import closed_form
from teleflm.planning.plan import plan, plan_on, ranks_of
from teleflm.planning.run import run_of_model

H100 = load_cluster("h100-8")


def nano(*overrides: str) -> RunConfig:
    return run_of_model("nano-52b", ["training.global_batch=16", *overrides])


def test_the_rank_that_needs_most_counts_wherever_it_is() -> None:
    # The head of 80,000 tokens is on the last rank, and all of its logits.
    config, layout = nano("model.num_hidden_layers=2"), Layout(pp=2)
    first, last = (closed_form(config, layout, rank) for rank in range(2))
    assert last.total > first.total
    found = plan_on(config, layout, H100)
    assert found.memory["total"] == last.total
    assert found.memory["activations"] == last.activations


def test_the_ranks_are_the_clusters_or_those_of_a_whole_layout() -> None:
    assert ranks_of(nano("parallel.tp=2").parallel, H100) == 8
    assert ranks_of(nano("parallel.tp=2", "parallel.dp=2").parallel, H100) == 4
    copies = ["parallel.dp_replicate=2", "parallel.dp_shard=1"]
    assert plan(nano(*copies), H100).layout == Layout(dp_replicate=2)
    with pytest.raises(ConfigError, match="are 16 ranks, but the cluster has 8 devices"):
        ranks_of(nano("parallel.tp=4", "parallel.dp=4").parallel, H100)


def test_a_kind_that_breaks_it_is_named_beside_the_others() -> None:
    total = plan(nano(), H100).memory["total"]
    tight = H100.model_copy(update={"memory_gb": total / 1e9 - 0.001})
    found = plan(nano(), tight)
    assert not found.fits and found.breaks is not None
    assert found.breaks.startswith("activations ") and " beside " in found.breaks
    assert plan(nano(), H100.model_copy(update={"memory_gb": total / 1e9})).breaks is None


def test_a_model_is_a_run_by_the_recipe() -> None:
    config = run_of_model("tele-flm-52b")
    assert config.tokens_per_step == 5_505_024
    assert (config.training.micro_batch, config.training.dtype) == (1, "bf16")
    assert config.parallel.gather_dtype == "bf16"
    # 20 tokens for each of 52,817,829,888 parameters.
    assert config.training.steps == 191_890


def test_what_is_said_goes_before_the_recipe() -> None:
    config = run_of_model(
        "tele-flm-52b",
        ["training.dtype=fp32", "training.steps=7", "data.sequence_length=64", "model.head_dim=64"],
    )
    assert (config.training.steps, config.data.sequence_length) == (7, 64)
    assert config.parallel.gather_dtype is None
    assert config.model.head_dim == 64


def test_memory_is_that_of_the_devices_kernels() -> None:
    config = nano("model.vocab_size=8192", "data.sequence_length=128")
    on_cpu = H100.model_copy(update={"kind": "cpu"})
    totals = [plan_on(config, Layout(), on).memory["total"] for on in (H100, on_cpu)]
    assert totals == [closed_form(config, Layout(), 0, kind).total for kind in ("cuda", "cpu")]
    assert totals[0] != totals[1]
