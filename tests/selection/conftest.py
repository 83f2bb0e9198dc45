"""A small model of made-up tasks, trained in seconds, and a set with all that is to be left out."""

import json
from pathlib import Path

import pytest

from benchmarks.chat_tasks import NOISE, Task, planted, tasks
from teleflm.checkpoint.open import Opened, open_state
from teleflm.data.store import prepare
from teleflm.data.tokenizer_training import train_tokenizer
from teleflm.selection.samples import Sample
from teleflm.selection.tokens import Writing
from teleflm.training.loop import train
from tests.tiny import run_config


@pytest.fixture(scope="package")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over texts of the same kinds as the set's, but others."""
    folder = tmp_path_factory.mktemp("tasks")
    text = folder / "tasks.jsonl"
    lines = (json.dumps({"text": f"{t.question}\n{t.answer}"}) for t in tasks(800, seed=99))
    text.write_text("\n".join(lines))
    train_tokenizer([text], 600, folder / "tokenizer")
    store = prepare([text], folder / "tokenizer", folder / "store", held_out=0.02)
    return train(
        run_config(
            store.path,
            folder / "run",
            data={"sequence_length": 64},
            training={"steps": 60, "global_batch": 8},
            optimizer={"learning_rate": 5e-3, "matrix_learning_rate": 5e-3},
            checkpoint={"every": 60},
            evaluation={"every": 60, "prompts": []},
        )
    )


@pytest.fixture(scope="package")
def opened(run: Path) -> Opened:
    return open_state(run)


@pytest.fixture(scope="package")
def writing(opened: Opened) -> Writing:
    assert opened.tokenizer is not None
    return Writing(opened.tokenizer)


@pytest.fixture(scope="package")
def planted_tasks() -> list[Task]:
    """A fifth of copies, and a fifth of noise of all sorts, answers to other questions too."""
    return planted(600, seed=0, sorts=(*NOISE, "mismatched"))


def samples_of(some: list[Task]) -> list[Sample]:
    """As they are read."""
    return [
        Sample(
            task.record()["messages"],
            f"{task.question}\n{task.answer}",
            "tasks",
            f"line {number}",
            json.dumps(task.record()).encode(),
        )
        for number, task in enumerate(some, start=1)
    ]
