"""Many ranks find what one does: each with the whole model, or all of them with one."""

from pathlib import Path
from typing import Any

import pytest
import torch

from teleflm.checkpoint.open import load
from teleflm.data.store import TokenStore
from teleflm.evaluation.tasks import TaskSettings
from teleflm.training.loop import train
from tests.distributed.evaluating import evaluate, scores
from tests.distributed.world import World
from tests.evaluation.task_files import write_tasks
from tests.tiny import run_config


def flat(found: Any, prefix: str = "") -> dict[str, float]:
    """All figures by their dotted names."""
    if isinstance(found, dict):
        parts = [flat(value, f"{prefix}{key}.") for key, value in found.items()]
        return {key: value for part in parts for key, value in part.items()}
    if isinstance(found, list):
        return flat(dict(enumerate(found)), prefix)
    return {prefix: found} if isinstance(found, (int, float)) else {}


def test_four_ranks_find_what_one_does(four: World, store: TokenStore, tmp_path: Path) -> None:
    run = train(run_config(store.path, tmp_path / "run", training={"steps": 1}))
    # Of 7 documents the ranks have shares of different size; examples are shown to each.
    tasks = TaskSettings(
        ["tiny_choice", "tiny_rolling"], write_tasks(tmp_path / "tasks"), few_shot=2, limit=7
    )
    alone, rows = evaluate(run, store.path, tasks, None)
    expected = pytest.approx(flat(alone), rel=1e-5)
    assert alone["tokens"] > 1500 and len(flat(alone)) > 20
    for layout in (None, {"tp": 2, "pp": 2}, {"tp": 2, "dp": 2}):
        results = four.run(evaluate, run, store.path, tasks, layout)
        assert all(flat(found) == expected for found, _ in results), layout
        each = [asked for _, asked in results]
        # By itself each rank does its share, together all do everything.
        assert sum(each) == rows if layout is None else each == [rows] * 4
    check_flags(four, run)
    words = TaskSettings(["tiny_text"], tasks.include)
    written = four.run(evaluate, run, store.path, words, None)[3][0]
    assert flat(written) == pytest.approx(flat(evaluate(run, store.path, words, None)[0]), rel=1e-5)
    with pytest.raises(AssertionError, match="written by whole models; leave out --layout"):
        four.run(evaluate, run, store.path, words, {"tp": 2, "pp": 2})


def check_flags(four: World, run: Path) -> None:
    """Whether a token is the likeliest is said alike, whichever rank has its row of the head."""
    network = load(run)
    rows = torch.randint(network.config.vocab_size, (40, 18), generator=torch.manual_seed(0))
    with torch.no_grad():
        rows[:, -1] = network(rows[:, :-1])[:, -1].argmax(-1)
    half = network.config.vocab_size // 2
    assert 0 < (rows[:, -1] < half).sum() < len(rows)
    asked = list(rows.numpy())
    expected = scores(run, asked, None)
    assert all(greedy[-1] and not all(greedy) for _, greedy in expected)
    for found in four.run(scores, run, asked, {"tp": 2, "pp": 2}):
        for (nats, greedy), (alone, flags) in zip(found, expected, strict=True):
            assert greedy == flags and nats == pytest.approx(alone, rel=1e-5)
