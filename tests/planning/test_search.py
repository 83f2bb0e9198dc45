"""The search: what fits first, by time, and a reason for everything else."""

import pytest

from teleflm.config.cluster import ClusterConfig, load_cluster
from teleflm.config.run import RunConfig
from teleflm.errors import ConfigError
from teleflm.parallel.choose import job_of, layouts_of, why_not
from teleflm.parallel.layout import Layout
from teleflm.planning.run import run_of_model
from teleflm.planning.search import Candidate, least_recomputation, search

A800 = load_cluster("a800-112x8")


def small(*overrides: str) -> RunConfig:
    return run_of_model("tele-flm-52b", ["training.global_batch=64", *overrides])


def cluster(servers: int, **changes: float) -> ClusterConfig:
    return A800.model_copy(update={"servers": servers, **changes})


@pytest.fixture(scope="module")
def found() -> list[Candidate]:
    """52B on 16 servers, of which tp 8 · pp 16 is asked for."""
    return search(small("parallel.tp=8", "parallel.pp=16"), cluster(16))


def test_those_that_fit_come_first_by_their_time(found: list[Candidate]) -> None:
    assert [each.place for each in found] == list(range(1, len(found) + 1))
    fits = [each.plan is not None and each.plan.fits for each in found]
    assert fits == sorted(fits, reverse=True) and any(fits) and not all(fits)
    seconds = [each.plan.time.seconds for each in found if each.plan and each.plan.fits]
    assert seconds == sorted(seconds)


def test_no_layout_is_missing(found: list[Candidate]) -> None:
    config = small()
    every = set(layouts_of(config.parallel, 128))
    assert {each.layout for each in found} == every
    refused = {each.layout for each in found if each.plan is None}
    assert Layout(tp=128) in refused and len(refused) < len(every)
    open_ = config.training.model_copy(update={"micro_batch": None})
    job = job_of(config.model_copy(update={"training": open_}))
    assert refused == {layout for layout in every if why_not(job, layout) is not None}


def test_each_setting_is_there_once(found: list[Candidate]) -> None:
    settings = [
        (each.layout, each.plan.micro_batch, each.plan.config.parallel.activation_checkpointing)
        for each in found
        if each.plan is not None
    ]
    assert len(set(settings)) == len(settings)
    at = {micro for layout, micro, _ in settings if layout == Layout(tp=8, pp=2, dp_shard=8)}
    # Eight sequences in parts of which a pipeline of two takes at least two.
    assert at == {1, 2, 4}


def test_the_layout_that_is_asked_for_is_marked_with_its_place(found: list[Candidate]) -> None:
    asked = [each for each in found if each.asked]
    assert {each.layout for each in asked} == {Layout(tp=8, pp=16)}
    assert all(each.reason for each in asked)


def test_the_layout_that_is_asked_for_is_there_where_it_cannot_be_had() -> None:
    (asked,) = (each for each in search(small("parallel.tp=128"), cluster(16)) if each.asked)
    assert asked.plan is None
    assert asked.reason == "parallel.tp 128 does not divide model.num_key_value_heads 64"


def test_every_reason_is_in_words(found: list[Candidate]) -> None:
    reasons = {each.reason for each in found}
    assert found[0].reason == "the fastest that fits"
    for words in ("beside", "micro-batches: bubble", "communication", "does not divide"):
        assert any(words in reason for reason in reasons), words


def test_the_reason_is_what_costs_most(found: list[Candidate]) -> None:
    # A pipeline of 16 with 64 micro-batches: 15/(64 + 15).
    asked = next(each for each in found if each.asked)
    assert asked.reason == "pp 16 with 64 micro-batches: bubble 19%"


def test_recomputation_is_named_where_the_first_has_none() -> None:
    best, *others = (each for each in search(small(), cluster(16, memory_gb=1e5)) if each.plan)
    full = next(each for each in others if each.layout == best.layout and kind(each) == "full")
    assert kind(best) == "none"
    assert full.reason.startswith("full recomputation: busiest stage computes")


def kind(candidate: Candidate) -> str:
    assert candidate.plan is not None
    return candidate.plan.config.parallel.activation_checkpointing


def test_a_slow_network_is_named() -> None:
    config = run_of_model("tele-flm-1t", ["parallel.tp=32", "parallel.pp=28"])
    asked = next(each for each in search(config, A800) if each.asked)
    assert asked.plan is not None and asked.plan.fits
    assert asked.layout == Layout(tp=32, pp=28)
    assert asked.reason.startswith("tp 32 crosses servers: ")


def test_where_nothing_fits_the_nearest_is_first() -> None:
    config = run_of_model("tele-flm-1t")
    found = search(config, cluster(8))
    totals = [each.plan.largest.total for each in found if each.plan is not None]
    assert totals == sorted(totals) and totals[0] > 80e9
    assert found[0].reason.endswith("of 80 GB")


def test_where_nothing_can_be_had() -> None:
    with pytest.raises(ConfigError, match="no layout of 11 ranks fits"):
        search(small("training.global_batch=8"), cluster(1, devices_per_server=11))


def test_a_layout_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"parallel\.tp 3 .* does not divide 128 ranks"):
        search(small("parallel.tp=3"), cluster(16))


def test_a_schedule_that_cannot_do_all_is_searched_in_what_it_can() -> None:
    found = search(small("parallel.schedule=zero_bubble"), cluster(2))
    plans = [each.plan for each in found if each.plan is not None and each.layout.pp > 1]
    kinds = {plan.config.parallel.activation_checkpointing for plan in plans}
    assert kinds == {"none"}


def test_a_layout_that_takes_no_power_of_two_is_there() -> None:
    # 15 sequences in three parts of 5: the schedule deals out neither 15 nor 5 parts evenly to two.
    config = small("training.global_batch=15", "parallel.schedule=interleaved")
    found = search(config, cluster(1, devices_per_server=2))
    micro = {each.plan.micro_batch for each in found if each.plan and each.layout.pp == 2}
    assert micro == {5}


def test_a_model_is_computed_again_no_more_than_it_has_to_be() -> None:
    layout = ["parallel.tp=8", "parallel.pp=2"]
    roomy = least_recomputation(small(*layout), cluster(16, memory_gb=10_000.0))
    tight = least_recomputation(small(*layout), cluster(16, memory_gb=1.0))
    assert roomy.config.parallel.activation_checkpointing == "none" and roomy.fits
    assert tight.config.parallel.activation_checkpointing == "full" and not tight.fits
