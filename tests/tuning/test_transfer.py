"""By µP the keys of a sweep's best hold at another width."""

from pathlib import Path

import pytest
import yaml

from teleflm.config.base import apply_overrides
from teleflm.config.resolve import resolve_model
from teleflm.config.run import RunConfig, resolve_run
from teleflm.errors import ConfigError
from teleflm.model.axes import parameter_of
from teleflm.tuning.transfer import transfer
from tests.tiny import run_fields

Q_PROJ = "model.layers.0.self_attn.q_proj.weight"
SEARCHED = {"optimizer.matrix_learning_rate": 4.8e-3, "training.global_batch": 8}


def best(*overrides: str) -> RunConfig:
    fields = run_fields(Path("store"), Path("run"))
    fields["model"] = {"preset": "nano-52b", "matrix_init_std": 0.03, "output_mult": 0.5}
    given = [f"{key}={value}" for key, value in SEARCHED.items()]
    given += ["optimizer.weight_decay=0.1", *overrides]
    return resolve_run(apply_overrides(fields, given), "run")


def test_the_keys_stay_and_what_they_come_to_follows_the_width() -> None:
    found = transfer(best(), SEARCHED, "tele-flm-1t")
    assert found.keys["optimizer.matrix_learning_rate"] == 4.8e-3
    assert found.keys["model.matrix_init_std"] == 0.03
    assert found.left == ["training.global_batch"]
    assert (found.proxy.m, found.target.m) == (0.5, 80)
    assert found.proxy.matrix_learning_rate == pytest.approx(9.6e-3)
    assert found.target.matrix_learning_rate == pytest.approx(6e-5)
    assert found.target.matrix_weight_decay == pytest.approx(8)
    assert found.target.logit_multiplier == pytest.approx(0.5 / 80)
    assert found.target.learning_rate == found.proxy.learning_rate


def test_the_text_makes_a_run_that_computes_so() -> None:
    found = transfer(best("model.mup_base_width=64"), SEARCHED, "tele-flm-52b")
    fields = run_fields(Path("store"), Path("run"))
    run = resolve_run({**fields, **yaml.safe_load(found.text)}, "pasted")
    assert run.optimizer == best().optimizer
    assert run.model.hidden_size == resolve_model("tele-flm-52b").hidden_size
    # The target has the proxy's base width, else the same rate would be another one.
    assert run.model.mup_base_width == 64
    assert found.target.matrix_init_std == pytest.approx(parameter_of(Q_PROJ).init_std(run.model))
    assert found.target.logit_multiplier == run.model.logit_multiplier


def test_standard_parametrization_does_not_carry_over() -> None:
    with pytest.raises(ConfigError, match="the best values move with the width; search with mup"):
        transfer(best("model.parametrization=standard"), SEARCHED, "tele-flm-1t")
    with pytest.raises(ConfigError, match="did you mean 'tele-flm-1t'"):
        transfer(best(), SEARCHED, "tele-flm-1")
