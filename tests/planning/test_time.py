"""The time model: its formulas by hand, and a job whose utilisation is published."""

from dataclasses import replace

import pytest

from teleflm.config.cluster import ClusterConfig, load_cluster
from teleflm.config.run import RunConfig, resolve_run
from teleflm.parallel.layout import Layout
from teleflm.planning.closed import Closed
from teleflm.planning.counting import Traffic
from teleflm.planning.plan import plan
from teleflm.planning.time import (
    axis_bandwidth,
    bubble_of,
    collective_seconds,
    crosses_servers,
    model_flops_utilisation,
    step_time,
)

# 10 TFLOP/s of 20, 100 GB/s in a server of 8 and 10 between two of them.
CLUSTER = ClusterConfig(
    servers=2,
    devices_per_server=8,
    device="made up",
    memory_gb=1,
    peak_tflops=20,
    matmul_efficiency=0.5,
    server_gb_s=100,
    network_gb_s=10,
    latency_us=0,
)
GB, TERA = 10**9, 10**12


def run(**parallel: object) -> RunConfig:
    model = {
        "vocab_size": 100,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
    }
    return resolve_run(
        {
            "run_dir": "run",
            "model": model,
            "data": {"path": "nowhere", "sequence_length": 32},
            "training": {"steps": 10, "global_batch": 16},
            "parallel": parallel,
        },
        "test",
    )


def work(flops: int, micro_batches: int = 1, **collectives: Traffic) -> Closed:
    named = {name.replace("__", "."): traffic for name, traffic in collectives.items()}
    return Closed(0, {}, 0, flops, 0, named, micro_batches)


def test_computation_alone() -> None:
    time = step_time(run(), Layout(), CLUSTER, [work(30 * TERA)])
    assert (time.compute, time.seconds, time.bubble_fraction) == (3.0, 3.0, 0.0)


def test_the_head_and_the_update_have_rates_of_their_own() -> None:
    cluster = CLUSTER.model_copy(update={"head_efficiency": 0.25, "update_ns": 3.0})
    rank = replace(work(40 * TERA), head_flops=10 * TERA, parameters=10**9)
    time = step_time(run(), Layout(), cluster, [rank])
    assert (time.compute, time.update) == pytest.approx((3 + 2, 3))
    assert time.seconds == pytest.approx(8)


def test_the_busiest_pipeline_rank_counts() -> None:
    ranks = [work(10 * TERA, 4), work(20 * TERA, 4)]
    assert step_time(run(), Layout(pp=2), CLUSTER, ranks).compute == 2.0


@pytest.mark.parametrize(
    ("schedule", "stages", "idle"),
    [("1f1b", 1, 3), ("interleaved", 2, 1.5), ("zero_bubble", 2, 0.5)],
)
def test_the_bubble(schedule: str, stages: int, idle: float) -> None:
    layout = Layout(pp=4, stages_per_rank=stages)
    config = run(schedule=schedule)
    assert bubble_of(layout, config.parallel.schedule) == idle
    time = step_time(config, layout, CLUSTER, [work(120 * TERA, micro_batches=12)])
    # Twelve micro-batches of a second, and so many more in which nothing is done.
    assert time.seconds == pytest.approx(12 + idle)
    assert time.bubble_fraction == pytest.approx(idle / (12 + idle))


@pytest.mark.parametrize(
    ("kind", "seconds"),
    [("all_gather", 0.75), ("reduce_scatter", 0.75), ("all_reduce", 1.5), ("broadcast", 1.0)],
)
def test_a_ring(kind: str, seconds: float) -> None:
    found = collective_seconds(f"tp.{kind}", Traffic(1, 100 * GB), Layout(tp=4), CLUSTER)
    assert found == pytest.approx(seconds)


def test_each_collective_waits_for_the_links() -> None:
    slow = CLUSTER.model_copy(update={"latency_us": 20.0})
    assert collective_seconds("tp.all_gather", Traffic(50_000, 0), Layout(tp=4), slow) == 1.0


def test_a_group_of_one_sends_nothing() -> None:
    assert collective_seconds("dp_shard.all_gather", Traffic(9, GB), Layout(tp=4), CLUSTER) == 0


@pytest.mark.parametrize(
    ("axis", "layout", "bandwidth"),
    [
        ("tp", Layout(tp=8, dp_shard=2), 100 * GB),
        # One group over both servers has all their ports.
        ("tp", Layout(tp=16), 80 * GB),
        # Eight groups over both servers share them.
        ("dp_shard", Layout(tp=8, dp_shard=2), 10 * GB),
        ("dp_shard", Layout(tp=4, dp_shard=4), 20 * GB),
        ("dp_shard", Layout(tp=4, pp=2, dp_shard=2), 100 * GB),
        ("pp", Layout(tp=4, pp=2, dp_shard=2), 10 * GB),
        # Groups of six lie across the border of a server by twos.
        ("tp", Layout(tp=6, dp_shard=2), 40 * GB),
        # All in one server.
        ("pp", Layout(pp=8), 100 * GB),
    ],
)
def test_the_links_of_an_axis(axis: str, layout: Layout, bandwidth: float) -> None:
    assert axis_bandwidth(axis, layout, CLUSTER) == bandwidth
    assert crosses_servers(axis, layout, CLUSTER) == (bandwidth < 100 * GB)


def test_the_network_is_no_quicker_than_the_links_to_it() -> None:
    fast = CLUSTER.model_copy(update={"network_gb_s": 50.0})
    assert axis_bandwidth("tp", Layout(tp=16), fast) == 100 * GB


def test_tensor_parallelism_is_waited_for_in_the_bubble_too() -> None:
    tp = {"tp__all_gather": Traffic(1, 200 * GB)}
    time = step_time(run(), Layout(tp=2, pp=2), CLUSTER, [work(10 * TERA, 2, **tp)])
    assert (time.compute, time.tensor, time.bubble) == (1.0, 1.0, 1.0)


def test_what_is_sent_and_received_at_once_counts_once() -> None:
    both = {"pp__send": Traffic(1, 100 * GB), "pp__recv": Traffic(1, 100 * GB)}
    time = step_time(run(), Layout(pp=2), CLUSTER, [work(10 * TERA, 2, **both)])
    assert time.pipeline == 1.0


def test_computation_hides_what_data_parallel_ranks_send() -> None:
    # 30 s of gathers; gradients of 30 s under the last micro-batch's backward pass.
    dp = {
        "dp_shard__all_gather": Traffic(1, 6000 * GB),
        "dp_shard__reduce_scatter": Traffic(1, 6000 * GB),
    }
    each = work(900 * TERA, 3, **dp)
    # Gathered for each micro-batch, under all 90 s of computation; 20 s of a backward pass.
    assert step_time(run(), Layout(dp_shard=2), CLUSTER, [each]).data == pytest.approx(10)
    # In a pipeline gathered once, under the 10 s of a forward pass.
    assert step_time(run(), Layout(dp_shard=2, pp=2), CLUSTER, [each]).data == pytest.approx(30)
    hidden = replace(each, flops=9000 * TERA)
    assert step_time(run(), Layout(dp_shard=2, pp=2), CLUSTER, [hidden]).data == 0


def test_utilisation_leaves_recomputation_out() -> None:
    config = run()
    matrices = 8 * (4 * 64 * 64 + 3 * 64 * 128) + 64 * 100
    a_token = 6 * matrices + 6 * 8 * 64 * 32
    found = model_flops_utilisation(config, 2, CLUSTER, seconds=1e-3)
    assert found == pytest.approx(a_token * 16 * 32 / (2 * 20e12 * 1e-3))


def test_a_published_utilisation() -> None:
    """FLM-101B's last stage, on which the A800's efficiency was calibrated (arXiv 2309.03852)."""
    config = resolve_run(
        {
            "run_dir": "run",
            "model": {
                "vocab_size": 100_256,
                "hidden_size": 10_240,
                "intermediate_size": 27_264,
                "num_hidden_layers": 80,
                "num_attention_heads": 80,
                "max_position_embeddings": 2048,
            },
            "data": {"path": "nowhere", "sequence_length": 2048},
            "training": {"steps": 5991, "global_batch": 2160, "micro_batch": 1},
            "parallel": {"tp": 4, "pp": 4, "dp": 12, "gather_dtype": "bf16"},
        },
        "FLM-101B",
    )
    found = plan(config, load_cluster("a800-112x8"))
    assert found.layout.ranks == 192
    assert found.mfu == pytest.approx(0.529, rel=0.01)
    # 26.5B tokens.
    assert found.days == pytest.approx(6.0, rel=0.02)
