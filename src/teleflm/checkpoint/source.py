"""A model at rest, wherever it came from."""

from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from teleflm.config.model import ModelConfig
from teleflm.growth.event import Lineage


@dataclass(frozen=True)
class ModelSource:
    """An ordinary model (growth masks folded), read from a checkpoint or a Hugging Face folder.

    Attributes:
        name: a short name for messages and model cards.
        model: its shape.
        state: its weights under Llama's keys, in the stored precision.
        tokenizer: a folder with its tokenizer files, None where there is none.
        step, tokens: how long it was trained.
        lineage: the events that led to it; empty for a foreign model.
        ramp: progress of its last growth's masks, 1 where none is open.
    """

    name: str
    model: ModelConfig
    state: dict[str, Tensor] = field(repr=False)
    tokenizer: Path | None = None
    step: int = 0
    tokens: int = 0
    lineage: Lineage = ()
    ramp: float = 1.0
