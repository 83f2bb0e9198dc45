"""The dry run of a whole job: each pipeline rank, by running only those that differ."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby

from teleflm.config.run import RunConfig
from teleflm.parallel.choose import layout_for
from teleflm.parallel.layout import Layout, stage_layers, stages_of
from teleflm.planning.dryrun import DryRun, dry_runs


@dataclass(frozen=True)
class StageRun:
    """A pipeline rank's dry run; of its ranks the first, which holds the most.

    Attributes:
        run: what it does.
        is_run: whether it was run, or follows from two neighbours with the same layers.
    """

    run: DryRun
    is_run: bool


def dry_job(
    config: RunConfig,
    ranks: int,
    device: str = "cuda",
    tell: Callable[[int, int], object] = lambda done, of: None,
) -> list[StageRun]:
    """One rank of each pipeline rank.

    Those in a row whose stages have as many layers differ by the micro-batches that they have in
    flight, one more from each to the one before: so the first and the last of them are run, and
    memory lies on a line between.

    Args:
        config: the run; data.path is not opened.
        ranks: all of the job.
        device: the kind that it would compute on, `cuda` or `cpu`.
        tell: has how many ranks are done, and of how many.

    Raises:
        ConfigError: a layout that cannot be had.
    """
    layout = layout_for(config, ranks)
    alike = alike_stages(config, layout)
    ends = sorted({end for group in alike for end in (group[0], group[-1])})
    each = layout.ranks // layout.pp
    found: dict[int, DryRun] = {}
    tell(0, len(ends))
    for done in dry_runs(config, ranks, [end * each for end in ends], device):
        found[done.rank // each] = done
        tell(len(found), len(ends))
    return [stage for group in alike for stage in _between(group, found, layout, config)]


def alike_stages(config: RunConfig, layout: Layout) -> list[list[int]]:
    """Pipeline ranks in a row that have the same to do, but for micro-batches in flight."""
    counts = [len(layers) for layers in stage_layers(config.final_model, layout.stages)]

    def work(rank: int) -> tuple[object, ...]:
        stages = stages_of(layout, rank * layout.ranks // layout.pp)
        return tuple((counts[s], s == 0, s == layout.stages - 1) for s in stages)

    return [list(group) for _, group in groupby(range(layout.pp), work)]


def _between(
    group: list[int], found: dict[int, DryRun], layout: Layout, config: RunConfig
) -> Iterator[StageRun]:
    first, last = found[group[0]], found[group[-1]]
    layers = stage_layers(config.final_model, layout.stages)
    for at in group:
        if at in found:
            yield StageRun(found[at], is_run=True)
            continue
        share = (at - group[0]) / (group[-1] - group[0])
        rank = at * layout.ranks // layout.pp
        run = replace(
            first,
            rank=rank,
            stage_layers=tuple(layers[stage] for stage in stages_of(layout, rank)),
            peak=round(first.peak + share * (last.peak - first.peak)),
        )
        yield StageRun(run, is_run=False)
