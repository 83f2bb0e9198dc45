"""What instruction tuning asks for beside training, and what it tells of its conversations."""

import sys
from pathlib import Path

from teleflm.config.run import RunConfig
from teleflm.data.store import TokenStore
from teleflm.errors import ConfigError, DataError
from teleflm.training.run import Run


def check_conversations(config: RunConfig, source: str) -> None:
    """Refuse what is no instruction tuning: without a checkpoint to start from, or where no source
    has conversations.

    Args:
        source: where the run was read, for messages.

    Raises:
        ConfigError: naming the key.
        DataError: a store cannot be read.
    """
    if config.start_from is None:
        raise ConfigError(
            f"{source}: start_from is missing: sft goes on from a checkpoint; name one, or use "
            "`teleflm train` to train from nothing"
        )
    if not any(_is_chat(place) for place in config.data.sources):
        raise ConfigError(
            f"{source}: data.path: no conversations in {', '.join(config.data.sources)}; make them "
            "with: teleflm data prepare --chat tele-flm --tokenizer DIR --out STORE PATH…"
        )
