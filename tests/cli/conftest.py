"""Things on disk for the command line to work on: made once, never written to."""

from pathlib import Path

import pytest

from teleflm.checkpoint.save import TOKENIZER, save_checkpoint
from teleflm.config.resolve import resolve_model
from teleflm.data.store import TokenStore
from teleflm.growth.grow import Growth
from teleflm.training.growing import grow_checkpoint
from teleflm.training.loop import train
from tests.growing import fresh_state
from tests.tiny import MODEL, run_config

CHILD = {"hidden_size": 40, "num_hidden_layers": 3, "intermediate_size": 50}


@pytest.fixture(scope="session")
def run(store: TokenStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of six steps."""
    return train(run_config(store.path, tmp_path_factory.mktemp("runs") / "run"))


@pytest.fixture(scope="session")
def grown(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run's model, grown."""
    out = tmp_path_factory.mktemp("grown") / "grown"
    parent = run_config(run, run).model.model_copy(update={"vocab_size": 424})
    grow_checkpoint(run, out, Growth(resolve_model(CHILD, parent), place="distance", ramp=10))
    return out


@pytest.fixture(scope="session")
def other(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of another model, of 40 tokens, beside a tokenizer of 424."""
    out = tmp_path_factory.mktemp("other") / "other"
    save_checkpoint(out, fresh_state(MODEL), None, run / TOKENIZER)
    return out
