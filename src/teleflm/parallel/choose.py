"""The layout of a run on its ranks."""

from teleflm.config.run import RunConfig
from teleflm.parallel.layout import Layout


def layout_for(config: RunConfig, ranks: int) -> Layout:
    """The layout of a run."""
    parallel = config.parallel
    dp = ranks // (parallel.tp * parallel.pp)
    replicate = parallel.dp_replicate or 1
    stages = parallel.stages_per_rank or (1 if parallel.schedule == "1f1b" else 2)
    return Layout(parallel.pp, replicate, dp // replicate, parallel.tp, stages)
