"""JSON-lines files that follow the run: a resumed run cuts them back to its checkpoint."""

import json
from pathlib import Path
from typing import Any

from teleflm.files import naming_full_disk, read_jsonl, write_whole


def records_up_to(path: Path, step: int) -> list[dict[str, Any]]:
    """The records of a file that belong to a run at `step`."""
    return [record for record in read_jsonl(path) if record["step"] <= step]


class JsonLines:
    """A file of records with a `step`, appended to line by line."""

    def __init__(self, path: Path, step: int) -> None:
        """Open `path`, keeping its records up to `step`."""
        kept = records_up_to(path, step)
        write_whole(path, "".join(map(_line, kept)))
        self._path = path
        self.steps = {record["step"] for record in kept}
        self._file = path.open("a", encoding="utf-8")

    def append(self, record: dict[str, Any]) -> None:
        """Write one record through to the operating system."""
        with naming_full_disk(self._path):
            self._file.write(_line(record))
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"
