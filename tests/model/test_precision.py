"""What a device computes in, and how fast."""

import time

import pytest
import torch

import teleflm.model.precision as module
from teleflm.config.run import Precision
from teleflm.errors import ConfigError
from teleflm.model.precision import check_precision, fast_precision, peak_rate, product_rate

CPU, GPU, APPLE = torch.device("cpu"), torch.device("cuda"), torch.device("mps")


def rates(monkeypatch: pytest.MonkeyPatch, bf16: float) -> None:
    """A machine that makes so many times as many bf16 products as fp32 ones."""
    monkeypatch.setattr(
        module, "product_rate", lambda device, precision: bf16 if precision == "bf16" else 1.0
    )


@pytest.mark.parametrize(
    ("bf16", "expected"),
    [(0.008, "fp32"), (0.9, "fp32"), (1.1, "fp32"), (1.8, "bf16"), (16.0, "bf16")],
)
def test_a_processor_computes_in_what_is_fast_there(
    monkeypatch: pytest.MonkeyPatch, bf16: float, expected: Precision
) -> None:
    rates(monkeypatch, bf16)
    assert fast_precision(CPU) == expected


@pytest.mark.parametrize(("native", "expected"), [(True, "bf16"), (False, "fp32")])
def test_a_gpu_says_so_itself(
    monkeypatch: pytest.MonkeyPatch, native: bool, expected: Precision
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: native)
    assert fast_precision(GPU) == expected


def test_apples_gpu_has_no_float64() -> None:
    assert fast_precision(APPLE) == "fp32"
    check_precision("bf16", APPLE)
    check_precision("fp64", CPU)
    with pytest.raises(ConfigError, match=r"fp64: the device 'mps' has no .*training.dtype=fp32"):
        check_precision("fp64", APPLE)


@pytest.mark.parametrize("precision", ["bf16", "fp32", "fp64"])
def test_a_rate_is_measured_in_under_a_second_and_kept(precision: Precision) -> None:
    product_rate.cache_clear()
    start = time.process_time()
    rate = product_rate(CPU, precision)
    # Of the processor's time, as the machine may be busy; a few threads work at it.
    assert time.process_time() - start < torch.get_num_threads()
    assert rate > 1e7
    assert product_rate(CPU, precision) == rate


def test_threads_that_wait_for_each_other_are_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = torch.get_num_threads()
    seen: list[int] = []

    def seconds(device: torch.device, precision: Precision, side: int) -> float:
        seen.append(torch.get_num_threads())
        return 2 * side**3 / 1e12

    monkeypatch.setattr(module, "_product_seconds", seconds)
    assert product_rate.__wrapped__(CPU, "fp32") == pytest.approx(threads * 1e12)
    assert set(seen) == {1}
    assert torch.get_num_threads() == threads


def test_a_slow_product_is_not_measured_at_larger_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    sides: list[int] = []

    def seconds(device: torch.device, precision: Precision, side: int) -> float:
        sides.append(side)
        return 2 * side**3 / 1e9

    monkeypatch.setattr(module, "_product_seconds", seconds)
    assert product_rate.__wrapped__(CPU, "bf16") == pytest.approx(torch.get_num_threads() * 1e9)
    assert sides == [256], "one of 512 would take a quarter of a second each"


def test_the_peak_is_that_of_the_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    rates(monkeypatch, 2.0)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100 80GB HBM3")
    assert peak_rate(GPU, "bf16") == 989e12
    assert peak_rate(GPU, "fp32") == 1.0, "the data sheet's is that of bf16"
    assert peak_rate(CPU, "bf16") == 2.0
