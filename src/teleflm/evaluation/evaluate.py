"""One model evaluated: bits per byte of text, and tasks."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from teleflm.checkpoint.open import Opened, open_state
from teleflm.config.run import ParallelConfig, Precision
from teleflm.data.chat_template import find_template
from teleflm.data.conversation import Conversations
from teleflm.data.sources import Reading, note
from teleflm.data.tokenizer import Tokenizer
from teleflm.data.tokenizer_files import has_tokenizer
from teleflm.errors import CheckpointError, ConfigError
from teleflm.evaluation.measure import NOTHING, Measured, difference, measure
from teleflm.evaluation.scorer import Scorer, check_length, open_scorer
from teleflm.evaluation.tasks import TaskSettings, run_tasks
from teleflm.evaluation.text import open_text
from teleflm.evaluation.windows import Windowing
from teleflm.parallel.ranks import Ranks

Json = dict[str, Any]
Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]


@dataclass(frozen=True)
class Settings:
    """What to evaluate on, and how.

    Attributes:
        data: a token store or text; the run's own store unless given, and nothing where there are
            tasks.
        whole: a store's training part too.
        reading: how documents are read out of records.
        windowing: see `teleflm.evaluation.windows`.
        tokens: the most to predict of each domain; all unless given.
        length: tokens that are predicted at once; all that the model's context has unless given.
        text_length: the same of text; those of a sequence in the run unless given.
        precision: what products are computed in.
        parallel: how ranks have the model together; each has it whole unless given.
        tasks: lm-eval's, where there are any.
    """

    data: Path | None = None
    whole: bool = False
    reading: Reading = field(default_factory=Reading)
    windowing: Windowing = "disjoint"
    tokens: int | None = None
    length: int | None = None
    text_length: int | None = None
    precision: Precision = "fp32"
    parallel: ParallelConfig | None = None
    tasks: TaskSettings | None = None


def evaluate_path(
    path: Path,
    settings: Settings,
    loaded: dict[str, Any] | None,
    device: torch.device,
    progress: Progress,
    against: Measured | None = None,
) -> tuple[Json, Measured]:
    """The model at `path`, as `eval --json` prints it, and what was measured of it. Every rank
    calls this, and all get the same.

    Args:
        path: a run folder, a checkpoint or a Hugging Face folder.
        loaded: the tasks of `settings`, by `load_tasks`.
        progress: a title and how many bytes → what takes them as they are read.
        against: of the model that it is compared with.

    Raises:
        CheckpointError, ConfigError, DataError: what cannot be opened or does not fit together.
    """
    source = open_state(path)
    tokenizer = None if source.tokenizer is None else _tokenizer(source.tokenizer)
    scorer = open_scorer(source, settings.length, settings.precision, device, settings.parallel)
    own = source.config.data.sequence_length if source.config is not None else scorer.length
    length = settings.text_length or min(own, scorer.length)
    check_length(length, source)
    reads = replace(scorer, length=length)
    data = settings.data
    if data is None and settings.tasks is None:
        data = _own_data(path, source)
    measured = NOTHING
    if data is not None:
        measured = _measured(source, reads, data, tokenizer, settings, progress)
    figures = asdict(replace(measured, windows={}))
    del figures["windows"]
    facts: Json = {
        "checkpoint": str(path),
        "step": source.state.step,
        "tokens_trained": source.state.tokens,
        "data": None if data is None else str(data),
        "sequence_length": reads.length,
        "windows": settings.windowing,
        # Conversations never see each other.
        "document_mask": _masks_documents(source) or measured.conversations is not None,
        "dtype": settings.precision,
        **figures,
    }
    if against is not None:
        facts["bpb_difference"] = difference(measured, against)
    if settings.tasks is not None and loaded is not None:
        if source.tokenizer is None or tokenizer is None:
            raise CheckpointError(
                f"{path}: no tokenizer there, so no task can be read; put the tokenizer.json that "
                "the model was trained with into the folder"
            )
        talk = Conversations(source.tokenizer, tokenizer) if settings.tasks.chat_template else None
        facts["tasks"] = run_tasks(scorer, tokenizer, loaded, settings.tasks, talk)
    return facts, measured


def _tokenizer(folder: Path) -> Tokenizer | None:
    return Tokenizer.load(folder) if has_tokenizer(folder) else None


def _measured(
    source: Opened,
    scorer: Scorer,
    data: Path,
    tokenizer: Tokenizer | None,
    settings: Settings,
    progress: Progress,
) -> Measured:
    text = open_text(data, tokenizer, settings.whole, settings.reading)
    own = source.chat_template
    if text.is_chat and own not in (None, find_template(data)) and Ranks().first:
        note(
            f"{data} is written by another chat template than that of {source.name}, so the model "
            "is judged by what it was not trained on"
        )
    with progress(f"evaluating {source.name}", text.bytes) as advance:
        return measure(
            scorer, text, settings.windowing, advance, settings.tokens, _masks_documents(source)
        )


def _masks_documents(source: Opened) -> bool:
    """Whether the model was trained on documents that do not see each other, and is to be
    evaluated so."""
    return source.config is not None and source.config.data.document_mask


def _own_data(path: Path, source: Opened) -> Path:
    """The token store that the run was trained on."""
    if source.config is None:
        raise ConfigError(
            f"{path}: no run made it, so it has no text of its own; name a token store or text "
            "with --data, or tasks with --tasks"
        )
    data = source.config.data.path
    if not isinstance(data, str):
        raise ConfigError(
            f"{path}: its run reads several sources; name a token store or text with --data"
        )
    return Path(data)
