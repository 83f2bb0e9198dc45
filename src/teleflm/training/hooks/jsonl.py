"""JSON-lines files that follow the run: a resumed run cuts them back to its checkpoint."""

import json
from pathlib import Path
from typing import Any

from teleflm.errors import DataError


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


class JsonLines:
    """A file of records with a `step`, appended to line by line."""

    def __init__(self, path: Path, step: int) -> None:
        """Open `path`, keeping its records up to `step`."""
        kept = [record for record in read_jsonl(path) if record["step"] <= step]
        aside = path.with_suffix(".partial")
        aside.write_text("".join(map(_line, kept)), encoding="utf-8")
        aside.replace(path)
        self.steps = {record["step"] for record in kept}
        self._file = path.open("a", encoding="utf-8")

    def append(self, record: dict[str, Any]) -> None:
        """Write one record through to the operating system."""
        self._file.write(_line(record))
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"
