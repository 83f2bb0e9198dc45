"""report.html of a whole job's dry run, from its dryrun.json."""

from pathlib import Path

from teleflm.parallel.memory import size_text
from teleflm.report.job import LayoutFigures, Part, memory_chart, read_record
from teleflm.report.job_figures import KINDS
from teleflm.report.page import write_page
from teleflm.report.words import whole

RECORD = "dryrun.json"


class Sent(Part):
    """Collectives of one kind along an axis."""

    count: int
    bytes: int


class StageFigures(Part):
    """See `teleflm.planning.job.StageRun`."""

    rank: int
    layout: LayoutFigures
    stage_layers: list[int]
    parameters_local: int
    memory_bytes: dict[str, int]
    flops: int
    collectives: dict[str, Sent]
    micro_batches: int
    micro_batches_run: int
    is_run: bool

    @property
    def sent(self) -> int:
        """Bytes of all collectives."""
        return sum(each.bytes for each in self.collectives.values())


class DryJob(Part):
    """The whole file."""

    run: str
    ranks: int
    stages: list[StageFigures]


def read_dryrun(folder: Path) -> DryJob:
    """DIR/dryrun.json.

    Raises:
        DataError: there is none, or it is damaged.
    """
    return read_record(folder / RECORD, DryJob)


def write_dryrun_report(folder: Path) -> Path:
    """Write DIR/report.html from DIR/dryrun.json.

    Raises:
        DataError: there is none, or it is damaged.
        MissingExtraError: matplotlib or jinja2 is not installed.
    """
    job = read_dryrun(folder)
    first = job.stages[0]
    most = max(job.stages, key=lambda stage: stage.memory_bytes["peak"])
    return write_page(
        folder / "report.html",
        "dryrun.html",
        title=f"{Path(job.run).stem} on {whole(job.ranks)} rank{'s' * (job.ranks > 1)}",
        folder=folder,
        lede=[
            f"A step of {job.run} at {first.layout}, run without its hardware: the code that "
            "trains, at full size, on tensors without values.",
            f"Rank {whole(most.rank)} needs the most memory: "
            f"{size_text(most.memory_bytes['peak'])}.",
        ],
        stages=job.stages,
        most=most,
        kinds=KINDS,
        memory=memory_chart([stage.memory_bytes for stage in job.stages], None),
        names=list(dict.fromkeys(name for stage in job.stages for name in stage.collectives)),
    )
