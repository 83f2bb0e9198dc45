"""Which files the paths that a user names stand for, and what is left out of them."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from teleflm.errors import DataError

PACKINGS = (".gz", ".zst")
PARQUET = ".parquet"
BODIES = (".txt", ".md", ".jsonl", ".json")
"""What may be packed too."""
HTML = (".html", ".htm")
WARC = ".warc"
RAW_BODIES = (*BODIES, *HTML, WARC)
"""What cleaning reads besides: text is yet to be got out of it."""

_MOST_NAMED = 3


class CorpusFile(NamedTuple):
    """A file to read: `web.jsonl.gz` has the body `.jsonl` and the packing `.gz`, else "".

    `folder` is the name of the folder right below the path that was named, or of that path.
    """

    path: Path
    folder: str
    bytes: int
    body: str
    packing: str


class Corpus(NamedTuple):
    """The files, in the order in which they are read, and a line for each path that holds more."""

    files: list[CorpusFile]
    left_out: list[str]

    @property
    def bytes(self) -> int:
        """Bytes on disk of all files: what `Progress` counts up to."""
        return sum(file.bytes for file in self.files)


def _kinds(bodies: tuple[str, ...]) -> str:
    return f"{', '.join(bodies)} (each also packed as {' or '.join(PACKINGS)}), {PARQUET}"


def _body_and_packing(name: str, bodies: tuple[str, ...]) -> tuple[str, str] | None:
    """Of a corpus file of that name; None where it is no name of one."""
    # Words, not paths: there may be very many files.
    stem, dot, suffix = name.lower().rpartition(".")
    packing = ""
    if dot + suffix in PACKINGS:
        packing = dot + suffix
        _, dot, suffix = stem.rpartition(".")
    body = dot + suffix
    return (body, packing) if body in bodies or (body == PARQUET and not packing) else None


def find_corpus(paths: Iterable[Path], bodies: tuple[str, ...] = BODIES) -> Corpus:
    """The corpus files that `paths` name, folders searched through, in sorted order per path.

    They are of the `bodies`, packed or not, and Parquet.

    Links are followed, and a folder that they lead to once more is left out. So are files of other
    kinds and what is hidden.

    Raises DataError for a path that is missing, of another kind, or a folder without corpus files,
    and for a link to nothing.
    """
    files: list[CorpusFile] = []
    left_out: list[str] = []
    for path in paths:
        if path.is_dir():
            search = _Search(path, bodies)
            if not search.files:
                held = f"; it holds {search.left_out()}" if search.others else ""
                raise DataError(f"{path}: no {_kinds(bodies)} file in this folder{held}")
            files += search.files
            if search.others:
                left_out.append(f"{path}: not read: {search.left_out()}")
            continue
        _check_there(path)
        kind = _body_and_packing(path.name, bodies)
        if kind is None:
            raise DataError(
                f"{path}: not a kind of corpus file; convert it to one of {_kinds(bodies)}"
            )
        files.append(CorpusFile(path, path.absolute().parent.name, path.stat().st_size, *kind))
    return Corpus(files, left_out)


def _check_there(path: Path) -> None:
    if path.is_symlink() and not path.exists():
        raise DataError(
            f"{path}: a link to {os.readlink(path)}, which is not there; mend it or remove it"
        )
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")


class _Search:
    """What a folder holds: the files to read, and the others by kind."""

    def __init__(self, root: Path, bodies: tuple[str, ...]) -> None:
        self.files: list[CorpusFile] = []
        self.others: dict[str, list[str]] = {}
        self._root, self._bodies = root, bodies
        # By device and number: links may lead back to a folder above, or to one folder twice.
        self._seen: set[tuple[int, int]] = set()
        self._visit(root, root.resolve().name)

    def _visit(self, folder: Path, name: str) -> None:
        status = folder.stat()
        if (status.st_dev, status.st_ino) in self._seen:
            self._leave_out("linked once more", folder)
            return
        self._seen.add((status.st_dev, status.st_ino))
        with os.scandir(folder) as entries:
            ordered = sorted(entries, key=lambda entry: entry.name)
        for entry in ordered:
            path = folder / entry.name
            if entry.name.startswith("."):
                self._leave_out("hidden", path)
                continue
            if entry.is_symlink():
                _check_there(path)
            if entry.is_dir():
                self._visit(path, entry.name if folder == self._root else name)
            elif not entry.is_file():
                self._leave_out("not files", path)
            elif kind := _body_and_packing(entry.name, self._bodies):
                self.files.append(CorpusFile(path, name, entry.stat().st_size, *kind))
            else:
                self._leave_out("".join(path.suffixes[-1:]) or "without a suffix", path)

    def _leave_out(self, kind: str, path: Path) -> None:
        self.others.setdefault(kind, []).append(str(path.relative_to(self._root)))

    def left_out(self) -> str:
        """In words, as `2 .pdf (a.pdf, b.pdf), 1 hidden (.cache)`."""
        return ", ".join(
            f"{len(names)} {kind} ({', '.join(names[:_MOST_NAMED])}"
            f"{', …' if len(names) > _MOST_NAMED else ''})"
            for kind, names in sorted(self.others.items())
        )
