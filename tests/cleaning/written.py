"""What a recipe wrote, read again."""

import json
from pathlib import Path
from typing import Any

import zstandard


def records(folder: Path) -> list[dict[str, Any]]:
    """All records below a folder."""
    found = []
    for path in sorted(folder.rglob("*.jsonl.zst")):
        with zstandard.open(path, "rt", encoding="utf-8") as file:
            found += [json.loads(line) for line in file]
    return found
