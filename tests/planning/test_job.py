"""A whole job from the stages that differ."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from teleflm.config.run import RunConfig, resolve_run
from teleflm.parallel.choose import layout_for
from teleflm.parallel.layout import stage_layers, stages_of
from teleflm.planning import job
from teleflm.planning.dryrun import DryRun
from tests.distributed.test_dryrun import run_of


def test_stages_alike_lie_on_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    config = resolve_run(run_of({"tp": 2, "pp": 8}), "the test")
    asked: list[int] = []

    def runs(config: RunConfig, ranks: int, which: Sequence[int], _: str) -> Iterator[DryRun]:
        layout = layout_for(config, ranks)
        layers = stage_layers(config.final_model, layout.stages)
        asked.extend(which)
        for rank in which:
            held = tuple(layers[stage] for stage in stages_of(layout, rank))
            kept: dict[str, Any] = {"parameters": 1}
            yield DryRun(rank, layout, held, 1, kept, 1000 - rank, {}, {}, 16, 16)

    monkeypatch.setattr(job, "dry_runs", runs)
    stages = job.dry_job(config, 16)
    assert asked == [0, 2, 12, 14], "first, last, and the ends of those between"
    assert [stage.run.rank for stage in stages] == list(range(0, 16, 2))
    assert [stage.run.peak for stage in stages] == [1000 - rank for rank in range(0, 16, 2)]
    assert [stage.is_run for stage in stages] == [True] * 2 + [False] * 4 + [True] * 2
    assert [stage.run.stage_layers for stage in stages] == [(range(i, i + 1),) for i in range(8)]
