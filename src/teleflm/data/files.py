"""Writing files so that a name never stands for half of one, and reading records line by line."""

import json
import os
from pathlib import Path
from typing import Any

from teleflm.errors import DataError


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


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file; a torn last line (a killed writer) is left out.

    Raises:
        DataError: a line that is not JSON; it is named.
    """
    if not path.exists():
        return []
    # Bytes, as a line may be torn inside a character; and no splitlines(), which would cut at
    # U+2028 and the like within a text.
    *lines, _ = path.read_bytes().split(b"\n")
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(json.loads(line))
        except ValueError:
            raise DataError(f"{path}, line {number}: damaged, not JSON; remove that line") from None
    return records
