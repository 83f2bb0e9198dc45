"""Who is called slow, and when a thread is said to wait."""

import importlib
import sys
import threading

import torch

import teleflm.training.hooks.lagging as lagging
from teleflm.training.hooks.lagging import Figures, Looks, device_seconds, slow_ranks

MODULES = (
    "torch.distributed.fsdp",
    "torch.distributed.pipelining.schedules",
    "teleflm.training.step",
)
HOSTS = ["a", "a", "b", "b"]


def slow(*found: Figures, stages: tuple[int, ...] = (0, 0, 0, 0)) -> list[str]:
    return slow_ranks(found, stages, HOSTS)


def test_a_rank_that_works_longer_is_named_with_its_host() -> None:
    usual = Figures(2.0, 1.1, 0.0)
    assert slow(usual, usual, Figures(2.0, 1.8, 0.0), usual) == [
        "rank 2 (host b) is slow: 1.8 s of own work a step where the others take 1.1 s"
    ]


def test_what_costs_the_step_nothing_is_not_told() -> None:
    usual = Figures(2.0, 0.05, 0.0)
    assert slow(usual, usual, Figures(2.0, 0.2, 0.0), usual) == []
    assert slow(usual, usual, usual, usual) == []


def test_a_stage_with_more_layers_is_not_slow() -> None:
    light, heavy = Figures(2.0, 0.8, 0.0), Figures(2.0, 1.9, 0.0)
    assert slow(light, light, heavy, heavy, stages=(0, 0, 1, 1)) == []
    (line,) = slow(light, light, heavy, light, stages=(0, 0, 1, 1))
    assert line.startswith("rank 2")


def test_a_gpu_that_is_slower_than_the_others_is_named() -> None:
    usual = Figures(2.0, 0.1, 0.005)
    assert slow(usual, Figures(2.0, 0.1, 0.009), usual, usual, stages=(0, 0, 1, 1)) == [
        "rank 1 (host a) is slow: its GPU takes 9 ms for what takes the others 5 ms"
    ]


def test_a_cpu_has_no_device_to_time() -> None:
    assert device_seconds(torch.device("cpu")) == 0.0


def test_a_thread_outside_of_communication_does_not_wait() -> None:
    looks = Looks(threading.get_ident())
    looks.look()
    assert looks.waiting_share == 0.0


def test_the_files_where_ranks_wait_are_there() -> None:
    """By another torch they may move, and then nobody would be seen waiting."""
    for module in MODULES:
        importlib.import_module(module)
    files = [str(getattr(module, "__file__", "")) for module in list(sys.modules.values())]
    for name in (*lagging._WAITS, *lagging._CALLS):
        assert any(file.endswith(name) for file in files), name
