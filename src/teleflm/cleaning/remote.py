"""Has the phases done by Slurm or Ray, with datatrove's executors."""

import inspect
import re
import subprocess
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from loguru import logger

from teleflm.cleaning.phases import Phase
from teleflm.cleaning.recipe import Executor
from teleflm.errors import ConfigError, MachineError, MissingExtraError

# What datatrove's executors are given by us; the rest is `executor.options`.
_OURS = {"pipeline", "tasks", "workers", "job_name", "depends", "depends_job_id", "logging_dir"}


Logs = Callable[[int], Path]
"""The folder of a phase's logs, by its number from 1."""


def check_executor(executor: Executor, out: Path) -> None:
    """See that the executor of a recipe is there and can write into `out`.

    Raises:
        ConfigError: an option that it does not have, or for Slurm a blank in that path.
        MissingExtraError: Ray is not installed.
    """
    if executor.kind == "local":
        return
    if executor.kind == "ray" and find_spec("ray") is None:
        raise MissingExtraError("ray", "ray")
    if executor.kind == "slurm" and re.search(r"\s", str(out)):
        raise ConfigError(f"{out}: Slurm's scripts take no path with a blank; rename it")
    known = set(inspect.signature(_kind(executor)).parameters) - _OURS
    for option in executor.options:
        if option not in known:
            raise ConfigError(
                f"executor.options.{option}: datatrove's executor for {executor.kind} has no such "
                f"option to set; it has {', '.join(sorted(known))}"
            )


def _kind(executor: Executor) -> Any:
    if executor.kind == "slurm":
        from datatrove.executor.slurm import SlurmPipelineExecutor

        return SlurmPipelineExecutor
    from datatrove.executor.ray import RayPipelineExecutor

    return RayPipelineExecutor


def submit(executor: Executor, title: str, phases: list[Phase], logs: Logs) -> list[str]:
    """Hand all phases to Slurm, each to begin when the one before is done, or have Ray do them.

    Args:
        executor: who.
        title: of Slurm's jobs, before the phase's name.
        phases: what.
        logs: where datatrove keeps its own, with its marks of the tasks that are done.

    Returns:
        Slurm's job numbers.

    Raises:
        MachineError: Slurm does not take a job.
    """
    logger.disable("datatrove")
    if executor.kind == "slurm":
        return _submit_to_slurm(executor, title, phases, logs)
    _do_with_ray(executor, phases, logs)
    return []


def _submit_to_slurm(executor: Executor, title: str, phases: list[Phase], logs: Logs) -> list[str]:
    jobs: list[Any] = []
    for number, phase in enumerate(phases, start=1):
        job = _kind(executor)(
            phase.pipeline,
            phase.tasks,
            workers=executor.workers or -1,
            # Written into a script without quotes: a blank would end it.
            job_name=re.sub(r"\W+", "-", f"{title} {phase.name}"),
            depends=jobs[-1] if jobs else None,
            logging_dir=str(logs(number)),
            **executor.options,
        )
        try:
            job.run()
        except FileNotFoundError as error:
            raise MachineError(
                f"{error.filename}: not found; run the command where Slurm takes jobs"
            ) from None
        except subprocess.CalledProcessError as error:
            raise MachineError(
                f"Slurm did not take the phase {phase.name!r}: sbatch left with code "
                f"{error.returncode}; what it says is above"
            ) from None
        jobs.append(job)
    # -1 where all of a phase was done already.
    return [str(job.job_id) for job in jobs if job.job_id != -1]


def _do_with_ray(executor: Executor, phases: list[Phase], logs: Logs) -> None:
    for number, phase in enumerate(phases, start=1):
        _kind(executor)(
            phase.pipeline,
            phase.tasks,
            workers=executor.workers or -1,
            logging_dir=str(logs(number)),
            **executor.options,
        ).run()
