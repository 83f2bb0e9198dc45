"""What each rank does in the evaluation's cases."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from teleflm.checkpoint.open import open_state
from teleflm.config.base import build
from teleflm.config.run import ParallelConfig
from teleflm.evaluation.evaluate import Settings, evaluate_path
from teleflm.evaluation.scorer import Scorer, open_scorer
from teleflm.evaluation.tasks import TaskSettings, load_tasks


def evaluate(run: Path, data: Path, tasks: TaskSettings, layout: dict[str, int] | None) -> Any:
    """What is found, and how many rows this rank's engine was asked for."""
    parallel = None if layout is None else build(ParallelConfig, layout, "layout")
    settings = Settings(data, length=16, text_length=16, tokens=600, parallel=parallel, tasks=tasks)
    asked: list[int] = []
    scores = Scorer.scores

    def counted(scorer: Scorer, rows: Any, *given: Any) -> Any:
        asked.append(len(rows))
        return scores(scorer, rows, *given)

    with patch.object(Scorer, "scores", counted):
        found, _ = evaluate_path(
            run,
            settings,
            load_tasks(tasks),
            torch.device("cpu"),
            lambda *_: nullcontext(lambda _: None),
        )
    return found, sum(asked)


def scores(run: Path, rows: Any, layout: dict[str, int] | None) -> Any:
    """Nats and flags of rows of tokens."""
    parallel = None if layout is None else build(ParallelConfig, layout, "layout")
    length = len(rows[0]) - 1
    scorer = open_scorer(open_state(run), length, "fp32", torch.device("cpu"), parallel)
    return [(nats.tolist(), greedy.tolist()) for nats, greedy in scorer.scores(rows)]
