"""Writing files so that a name never stands for half of one."""

import os
from pathlib import Path


def sync_folder(folder: Path) -> None:
    """Make the renames inside `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, content: str) -> None:
    """Write `content` as UTF-8 beside `path`, sync it, then rename it into place.

    Raises OSError where the disk is full or the folder cannot be written; `path` is then as it was.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with aside.open("w", encoding="utf-8", newline="") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
