"""`--out` of plan and dryrun: a record as JSON, and the page that is made of it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from teleflm.errors import ConfigError, DataError

if TYPE_CHECKING:
    from teleflm.planning.plan import Plan


def check_out(folder: Path, verb: str) -> None:
    """Refuse a folder that holds anything but what the verb wrote there earlier.

    Args:
        folder: to be written to.
        verb: `plan` or `dryrun`.

    Raises:
        ConfigError: naming what it holds.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ConfigError(f"{folder} is a file; choose a folder for --out")
    ours = {f"{verb}.json", "report.html"} if _is_record(folder, verb) else set()
    foreign = sorted(path.name for path in folder.iterdir() if path.name not in ours)
    if foreign:
        raise ConfigError(
            f"{folder} holds {foreign[0]}, which teleflm {verb} did not write, and stays; choose "
            "another folder for --out"
        )


def _is_record(folder: Path, verb: str) -> bool:
    from teleflm.report.dryrun import read_dryrun
    from teleflm.report.plan import read_plan

    try:
        read_plan(folder) if verb == "plan" else read_dryrun(folder)
    except DataError:
        return False
    return True


def write_plan(
    folder: Path, facts: Mapping[str, Any], found: "Plan", run: str, cluster: str
) -> Path:
    """Write DIR/plan.json and DIR/report.html.

    Args:
        folder: made where it is not there.
        facts: what `plan --json` prints.
        found: the plan that they are of.
        run, cluster: as they were given.
    """
    from teleflm.planning.facts import picture_facts
    from teleflm.report.plan import RECORD, write_plan_report

    _write(folder, RECORD, {"run": run, "cluster": cluster, **facts, **picture_facts(found)})
    return write_plan_report(folder)


def write_dryrun(folder: Path, facts: Mapping[str, Any], run: Path, ranks: int) -> Path:
    """Write DIR/dryrun.json and DIR/report.html.

    Args:
        folder: made where it is not there.
        facts: what `dryrun --json` prints of a whole job.
        run: as it was given.
        ranks: of the job.
    """
    from teleflm.report.dryrun import RECORD, write_dryrun_report

    _write(folder, RECORD, {"run": str(run), "ranks": ranks, **facts})
    return write_dryrun_report(folder)


def _write(folder: Path, record: str, facts: Mapping[str, Any]) -> None:
    from teleflm.files import write_whole

    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / record, json.dumps(facts) + "\n")
