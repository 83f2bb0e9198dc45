"""report.html of one run."""

from pathlib import Path

from teleflm.config.run import RunConfig, load_run
from teleflm.model.axes import parameter_count
from teleflm.report import tables
from teleflm.report.figures import GrowthMark
from teleflm.report.page import write_page
from teleflm.report.records import Row, Trace, read_trace, steps_a_point
from teleflm.report.series import domain_charts, loss_charts, panels
from teleflm.report.words import count, decimal


def write_run_report(run_dir: Path) -> Path:
    """Write RUN/report.html from the run's config and records.

    Raises:
        ConfigError, DataError: the config or a record cannot be read.
        MissingExtraError: matplotlib or jinja2 is not installed.
    """
    config = load_run(run_dir / "config.yaml")
    trace = read_trace(run_dir, run_dir.name)
    marks = _marks(trace)
    evaluations = [row for row in trace.evaluations if row.get("bpb")]
    return write_page(
        run_dir / "report.html",
        "run.html",
        title=f"Run {run_dir.name}",
        folder=run_dir,
        config=config,
        lede=_lede(config, trace),
        sizes=tables.SIZES,
        parameters=parameter_count(config.final_model),
        parameters_before=parameter_count(config.model),
        grows=bool(marks),
        evaluation=trace.evaluations[-1] if trace.evaluations else {},
        last=trace.metrics[-1] if trace.metrics else {},
        averaged=steps_a_point([trace]),
        losses=loss_charts([trace], marks),
        panels=panels([trace], marks),
        domains=domain_charts([trace], marks),
        first_bpb=evaluations[0] if evaluations else {},
        last_bpb=evaluations[-1] if evaluations else {},
        samples=_latest(trace.samples),
        samples_step=trace.samples[-1]["step"] if trace.samples else None,
    )


def _marks(trace: Trace) -> list[GrowthMark]:
    """A run whose first step has masks to open begins with a growth."""
    closed = [row["step"] for row in trace.metrics if row.get("ramp", 1.0) < 1.0]
    if not closed or closed[0] != trace.metrics[0]["step"]:
        return []
    return [GrowthMark("", closed[0] - 1, closed[-1] - closed[0] + 1)]


def _lede(config: RunConfig, trace: Trace) -> list[str]:
    model = config.final_model
    shape = tables.shape_of(model.model_dump())
    begun = f"A model of {count(parameter_count(model))} parameters ({shape})"
    grown = f", grown from {count(parameter_count(config.model))}," if config.growth else ""
    done, planned = len(trace.metrics), config.training.steps
    steps = f"all {planned:,} steps" if done >= planned else f"{done:,} of {planned:,} steps"
    read = count(done * config.tokens_per_step)
    sentences = [f"{begun}{grown} has been trained for {steps} on {read} tokens."]
    if skipped := sum(bool(row.get("skipped")) for row in trace.metrics):
        sentences.append(f"Steps skipped as they went wrong: {skipped:,}.")
    if trace.evaluations:
        first, last = (trace.evaluations[place].get("loss") for place in (0, -1))
        sentences.append(f"Its held-out loss went from {decimal(first)} to {decimal(last)}.")
    return sentences


def _latest(samples: list[Row]) -> list[Row]:
    """The newest samples."""
    return [row for row in samples if row["step"] == samples[-1]["step"]]
