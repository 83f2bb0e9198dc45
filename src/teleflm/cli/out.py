"""Where verbs write: a terminal, and files that the user names."""

from pathlib import Path

from teleflm.errors import ConfigError

WIDTH = 80
"""Columns of a terminal that tables fit in."""


def check_new(out: Path | None) -> None:
    """Refuse an `--out` that is there already; before the work, which would be lost with it.

    Raises:
        ConfigError: naming it.
    """
    if out is not None and out.exists():
        raise ConfigError(f"{out}: is there already; remove it, or give another --out")
