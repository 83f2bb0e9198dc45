"""A machine measured by a few short steps, and what follows of longer ones."""

from pathlib import Path

import pytest

from teleflm.config.cluster import ClusterConfig, load_cluster
from teleflm.config.run import RunConfig
from teleflm.errors import ConfigError
from teleflm.planning import calibrate
from teleflm.planning.calibrate import Seconds, calibrated, fitted, probe, write_calibrated
from teleflm.planning.plan import plan
from teleflm.planning.run import run_of_model

LOCAL = ClusterConfig(
    devices_per_server=1, device="2 cores", memory_gb=20, peak_tflops=1, matmul_efficiency=1
)
# Seconds of a micro-batch's way through a layer and through what is outside of them, and of a
# parameter's update.
LAYER, ENDS, UPDATE = 0.02, 0.07, 2e-9


def run(*overrides: str) -> RunConfig:
    small = ("model.vocab_size=512", "training.global_batch=12", "training.micro_batch=2")
    return run_of_model("nano-52b", ["data.sequence_length=64", *small, *overrides])


def takes(layers: int, micro_batches: int, parameters: int) -> Seconds:
    return Seconds(micro_batches * (layers * LAYER + ENDS), parameters * UPDATE)


def measured(config: RunConfig, local: ClusterConfig = LOCAL) -> ClusterConfig:
    few, more = (probe(config, layers, 2, "cpu") for layers in (1, 4))
    fewer_take, more_take = (takes(p.layers, 1, p.work.parameters) for p in (few, more))
    return fitted(local, few, more, fewer_take, more_take)


def test_a_whole_step_follows_from_short_ones() -> None:
    config = run()
    found = plan(config, measured(config))
    expected = takes(config.model.num_hidden_layers, 6, found.parameters)
    assert found.time.compute == pytest.approx(expected.passes, rel=1e-3)
    assert found.time.update == pytest.approx(expected.update, rel=1e-3)
    assert found.time.seconds == pytest.approx(expected.passes + expected.update, rel=1e-3)


def test_a_quick_machine_raises_the_peak_and_not_the_share() -> None:
    config = run()
    found = measured(config, LOCAL.model_copy(update={"peak_tflops": 1e-9}))
    assert found.matmul_efficiency == 1
    probed = probe(config, 1, 2, "cpu").work
    assert found.peak * LAYER == pytest.approx(probed.flops - probed.head_flops, rel=1e-3)


def test_noise_that_makes_more_layers_quicker_is_said() -> None:
    few, more = (probe(run(), layers, 2, "cpu") for layers in (1, 4))
    with pytest.raises(ConfigError, match="too busy to be measured"):
        fitted(LOCAL, few, more, Seconds(1, 0), Seconds(0.9, 0))


def test_what_does_not_fit_is_said_before_it_is_built() -> None:
    with pytest.raises(ConfigError, match=r"4 of the model's layers need \d+ GB, .*smaller model"):
        calibrated(run_of_model("tele-flm-1t"))


def test_it_measures_real_steps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(calibrate, "_SECONDS", 0.0)
    config = run()
    found = calibrated(config)
    # A thousand times more or less would not be seconds.
    assert 1e-4 < plan(config, found).time.seconds < 100
    write_calibrated(tmp_path / "here.yaml", config, found)
    assert load_cluster(str(tmp_path / "here.yaml")) == found
    assert "layers of hidden 128, FFN 352" in (tmp_path / "here.yaml").read_text()
