"""How far `data prepare` has come, kept beside its files so that the same command goes on."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from teleflm.data.find import CorpusFile
from teleflm.data.parts import DomainWriter
from teleflm.data.sources import LeftOut
from teleflm.files import write_whole

SAVE_SECONDS = 5.0
_FILE = "going-on.json"


class Position(NamedTuple):
    """Whole files that are done, and the pieces that are done of the file after them."""

    files: int
    pieces: int


class Saves:
    """The newest state and the newest one between two files, which outlives a file's repair."""

    def __init__(self, folder: Path, files: Sequence[CorpusFile]) -> None:
        self.path, self._files = folder / _FILE, files
        self._states: dict[str, dict[str, Any]] = {}
        self._saved = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether it is time to save again."""
        return time.monotonic() - self._saved >= SAVE_SECONDS

    def save(self, at: Position, left_out: LeftOut, writers: Mapping[str, DomainWriter]) -> None:
        """Keep the state; `left_out` is the reader's of the whole files."""
        state = {
            "files": [mark(file) for file in self._files[: at.files + bool(at.pieces)]],
            "position": at,
            "left_out": asdict(left_out),
            "domains": {name: writer.save() for name, writer in writers.items()},
        }
        self._states["between" if not at.pieces else "within"] = state
        write_whole(self.path, json.dumps(self._states))
        self._saved = time.monotonic()

    def newest(self) -> dict[str, Any] | None:
        """The newest state whose files are as they were, or None."""
        if not self.path.is_file():
            return None
        now = [mark(file) for file in self._files]
        states = [
            state
            for state in json.loads(self.path.read_text(encoding="utf-8")).values()
            if state["files"] == now[: len(state["files"])]
        ]
        return max(states, key=lambda state: state["position"], default=None)

    def remove(self) -> None:
        """Nothing is to go on from."""
        self.path.unlink(missing_ok=True)

    @property
    def exist(self) -> bool:
        """Whether something was saved, now or by an earlier process."""
        return self.path.is_file()


def mark(file: CorpusFile) -> list[Any]:
    """What shows that a file is as it was."""
    status = file.path.stat()
    return [str(file.path.absolute()), status.st_size, status.st_mtime_ns]
