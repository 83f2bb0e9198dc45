"""What a format of exports is: one object each, in a file of its own."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from teleflm.checkpoint.open import Opened
from teleflm.checkpoint.writer import Block
from teleflm.config.formats import ExportDtype, ExportKind
from teleflm.config.model import ModelConfig
from teleflm.errors import ConfigError
from teleflm.growth.state import LazyState

CARD = "README.md"


@dataclass(frozen=True)
class Beside:
    """What an export has beside its tensors.

    Attributes:
        texts: whole files by name, but for the model card.
        headers: what a weight file begins with, by name, where it is no safetensors file.
        copies_tokenizer: whether the tokenizer's own files lie there.
        use: how it is loaded, for the model card.
    """

    use: str
    texts: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, bytes] = field(default_factory=dict)
    copies_tokenizer: bool = False


class Format(ABC):
    """A format of exports.

    Attributes:
        kind: its name.
        library: what loads it, by the name that model hubs have for it.
        dtypes: what its weights can be stored in.
    """

    kind: ExportKind
    library: str
    dtypes: Mapping[ExportDtype, torch.dtype]

    @abstractmethod
    def check(self, model: ModelConfig) -> None:
        """Refuse a model that it cannot hold. Raises ConfigError naming why, and the way out."""

    @abstractmethod
    def files(self, state: LazyState, dtype: ExportDtype) -> dict[str, list[Block]]:
        """The blocks of each weight file; only their values need a state that can be read."""

    @abstractmethod
    def beside(self, source: Opened, dtype: ExportDtype) -> Beside:
        """What else the folder has. Raises TeleflmError for what cannot be said there."""

    @abstractmethod
    def writes(self, name: str) -> bool:
        """Whether an export of it may have a file of that name, but for the tokenizer's own."""

    def notes(self, source: Opened, dtype: ExportDtype) -> Sequence[str]:
        """What is other than asked for, for the terminal."""
        return ()

    def check_dtype(self, dtype: ExportDtype) -> None:
        """Refuse a dtype that it does not have. Raises ConfigError naming those that it has."""
        if dtype not in self.dtypes:
            raise ConfigError(
                f"--dtype {dtype} is none of the format {self.kind}, which has "
                f"{', '.join(self.dtypes)}; choose one of them"
            )
