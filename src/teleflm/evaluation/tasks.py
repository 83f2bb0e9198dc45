"""Tasks of lm-eval by their names, on our own network."""

import difflib
import logging
import math
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from teleflm.data.conversation import Conversations
from teleflm.data.tokenizer import Tokenizer
from teleflm.errors import ConfigError, DataError, MissingExtraError, TeleflmError
from teleflm.evaluation.scorer import Scorer

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager

# Of a machine that is to be reached before a task's data is asked for.
_SECONDS = 3.0
_SEED = 1234  # of the examples that are shown, lm-eval's own


@dataclass(frozen=True)
class TaskSettings:
    """How tasks are asked.

    Attributes:
        names: of tasks, groups and tags.
        include: a folder with task files, which go before lm-eval's own.
        few_shot: examples that are shown; each task's own number unless given.
        limit: documents of each task, from its beginning; all unless given.
        chat_template: whether a context is written as a chat, by the model's template.
        runs_code: whether tasks may run code that the model wrote.
    """

    names: Sequence[str]
    include: Path | None = None
    few_shot: int | None = None
    limit: int | None = None
    chat_template: bool = False
    runs_code: bool = False


def check_harness() -> None:
    """Raises MissingExtraError where lm-eval is not installed."""
    try:
        import lm_eval  # noqa: F401
    except ImportError:
        raise MissingExtraError("lm-eval", "eval") from None


def run_tasks(
    scorer: Scorer,
    tokenizer: Tokenizer,
    tasks: dict[str, Any],
    settings: TaskSettings,
    talk: Conversations | None = None,
) -> dict[str, dict[str, float | None]]:
    """What lm-eval says of each task: {task: {"metric,filter": figure}}, `…_stderr,…` beside it.

    Every rank calls this, and all get the same.

    Args:
        tasks: of `load_tasks`.
        talk: writes each context as a chat, where it is given.

    Raises:
        DataError: a document without an answer, or one that is too long, or that the task's own
            lines do not fit.
        ConfigError: tasks that write text, of a model that lies on many ranks.
    """
    from lm_eval.evaluator import evaluate

    from teleflm.evaluation.harness import HarnessModel

    model = HarnessModel(scorer, tokenizer, talk)
    for task in tasks["tasks"].values():
        # Each model is shown the same examples: the draws go on from one model to the next.
        task.set_fewshot_seed(seed=_SEED)
    with _quiet():
        try:
            found = evaluate(
                model,
                tasks,
                limit=settings.limit,
                log_samples=False,
                apply_chat_template=talk is not None,
                fewshot_as_multiturn=talk is not None,
                confirm_run_unsafe_code=settings.runs_code,
            )
        except (TeleflmError, RuntimeError, MemoryError, OSError):
            raise  # of the model or the machine
        except Exception as error:
            # Of a document without a field that the task's own lines ask for, above all; a task's
            # own code fails in any way.
            raise DataError(
                f"--tasks {','.join(settings.names)}: cannot be asked ({_reason(error)})"
            ) from error
    return {
        name: {key: _figure(value) for key, value in figures.items() if "," in key}
        for name, figures in found["results"].items()
    }


def _figure(value: object) -> float | None:
    """A figure as JSON can have it; lm-eval says "N/A" where there is none."""
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def load_tasks(settings: TaskSettings) -> dict[str, Any]:
    """The tasks with their data, as lm-eval's `evaluate` takes them.

    Raises:
        MissingExtraError: lm-eval is not installed.
        ConfigError: an unknown task, or one that runs code without leave.
        DataError: a task whose data cannot be had, by a damaged file or for want of a network.
    """
    check_harness()
    if settings.runs_code:
        os.environ["HF_ALLOW_CODE_EVAL"] = "1"  # what the metric asks for
    with _quiet():
        manager = _manager(settings)
        _offline_where_alone()
        loaded: dict[str, Any] = {"tasks": {}, "groups": {}, "group_map": {}}
        for name in settings.names:
            for kind, some in _load(manager, name).items():
                loaded[kind] |= some
    for name, task in loaded["tasks"].items():
        if getattr(task, "UNSAFE_CODE", False) and not settings.runs_code:
            raise ConfigError(
                f"task {name}: runs code that the model writes; where that can do no harm, allow "
                "it with --run-code"
            )
        own = task.get_config("num_fewshot")
        # A task that says 0 has no examples to show.
        if settings.few_shot is not None and own != 0:
            task.set_config(key="num_fewshot", value=settings.few_shot)
        elif own is None:
            task.set_config(key="num_fewshot", value=0)
    return loaded


def _manager(settings: TaskSettings) -> "TaskManager":
    """That knows all the names. The folder's own tasks are found in a moment, lm-eval's in 10 s."""
    from lm_eval.tasks import TaskManager

    include = settings.include
    if include is not None:
        if not include.is_dir():
            raise ConfigError(f"--include {include}: no such folder; give one with task files")
        manager = TaskManager(include_path=str(include), include_defaults=False)
        if all(name in manager.all_tasks for name in settings.names):
            return manager
        _check_readable(include)
    manager = TaskManager(include_path=None if include is None else str(include))
    for name in settings.names:
        if name not in manager.all_tasks:
            near = difflib.get_close_matches(name, manager.all_tasks, n=3)
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            raise ConfigError(
                f"--tasks {name}: no task of that name in lm-eval"
                f"{'' if include is None else f' or in {include}'}{hint}"
            )
    return manager


def _check_readable(include: Path) -> None:
    """Raises DataError for a file that is no YAML, which lm-eval passes over without a word."""
    import yaml

    for file in sorted(include.glob("**/*.yaml")):
        try:
            # Not made into objects: lm-eval has tags of its own.
            yaml.compose(file.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            reason = " ".join(str(error).split())
            raise DataError(f"{file}: not valid YAML ({reason}); mend the task file") from error


def _load(manager: "TaskManager", name: str) -> dict[str, Any]:
    try:
        return dict(manager.load([name]))
    except Exception as error:  # of datasets, of the hub, of a task's own code: nothing narrower
        reason = _reason(error)
        if isinstance(error, (ConnectionError, TimeoutError)):
            raise DataError(
                f"task {name}: its data is to be downloaded, and the network does not give it "
                f"({reason}); run it once where there is a network, which keeps the data, or write "
                "a task file with local data and give its folder with --include"
            ) from error
        raise DataError(f"task {name}: cannot be loaded ({reason})") from error


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _offline_where_alone() -> None:
    """Have the libraries of tasks' data not ask six times for a network that is not there.

    What they have kept is used then.
    """
    import datasets
    from huggingface_hub import constants

    if any(key in os.environ for key in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY")):
        return
    hub = urlsplit(constants.ENDPOINT)
    try:
        port = hub.port or (443 if hub.scheme == "https" else 80)
        socket.create_connection((hub.hostname or "", port), _SECONDS).close()
    except OSError:
        datasets.config.HF_DATASETS_OFFLINE = True
        constants.HF_HUB_OFFLINE = True


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what lm-eval and the libraries under it tell of what goes well."""
    import datasets
    from datasets.utils.logging import get_verbosity, set_verbosity_error

    loggers = [logging.getLogger(name) for name in ("lm_eval", "huggingface_hub")]
    before = [logger.level for logger in loggers]
    verbosity, bars = get_verbosity(), datasets.are_progress_bars_disabled()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    set_verbosity_error()
    datasets.disable_progress_bars()
    try:
        # Some of it goes to standard output, which is the command's own.
        with redirect_stdout(sys.stderr):
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
        datasets.logging.set_verbosity(verbosity)
        if not bars:
            datasets.enable_progress_bars()
