"""Writing so that a name never stands for half of something, and reading records line by line."""

import errno
import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from teleflm.errors import DataError, MachineError, RunLockedError

_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)


@contextmanager
def naming_full_disk(path: Path) -> Iterator[None]:
    """Turn a disk's failure, also inside a library's error, into one that names `path`.

    Raises:
        MachineError: the disk is full or fails.
    """
    try:
        yield
    except MachineError:
        raise
    except BaseException as error:
        if (reason := _disk_error(error)) is not None:
            raise MachineError(
                f"{path}: not written ({reason}); free some space and run the same command "
                "again, it goes on from what was finished"
            ) from error
        raise


def _disk_error(error: BaseException | None) -> str | None:
    """The operating system's word where a disk failed."""
    if error is None:
        return None
    if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
        return error.strerror
    if "No space left" in str(error):
        return "No space left on device"
    return _disk_error(error.__cause__ or error.__context__)


def sync(path: Path) -> None:
    """Make a file's content, or the renames inside a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, content: str | bytes) -> None:
    """Write `content`, text as UTF-8, beside `path`, sync it, then rename it into place.

    Raises:
        MachineError: the disk is full or fails; `path` is then as it was.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with naming_full_disk(path):
        try:
            with aside.open("wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
        sync(path.parent)


# In a folder that is not whole yet: what it is to become.
_WORK = ".work"


@contextmanager
def written_aside(folder: Path, work: str | None = None) -> Iterator[Path]:
    """A folder to write into, which takes the place of `folder` when all went well.

    Args:
        folder: what is to be there, whole or not at all.
        work: names what is being written. What an interrupted writer of the same work left is then
            there again, and is left again where this one fails.

    Raises:
        MachineError: the disk is full or fails; `folder` is then as it was.
        RunLockedError: another process is writing it.
    """
    partial, old = (folder.parent / f".{folder.name}.{kind}" for kind in ("partial", "old"))
    with naming_full_disk(folder), _owned(partial, work):
        try:
            yield partial
            (partial / _WORK).unlink(missing_ok=True)
            for path in (*partial.rglob("*"), partial):
                sync(path)
            if folder.exists():
                # Moved, not removed: a crash in between must not lose both.
                shutil.rmtree(old, ignore_errors=True)
                folder.rename(old)
            partial.rename(folder)
        except BaseException:
            if work is None:
                shutil.rmtree(partial, ignore_errors=True)
            if old.exists() and not folder.exists():
                old.rename(folder)
            raise
        sync(folder.parent)
        shutil.rmtree(old, ignore_errors=True)


def remove_folder(folder: Path) -> None:
    """Remove a folder; a process that is killed in between leaves nothing under its name."""
    gone = folder.with_name(f".{folder.name}.partial")
    folder.rename(gone)
    shutil.rmtree(gone)


def clear_left_behind(parent: Path) -> None:
    """Remove what killed processes left of folders that they wrote or removed in `parent`.

    Nobody else may be writing there.
    """
    for old in parent.glob(".*.old"):
        # What a replacement had moved out of the way, and was killed before it took the place.
        folder = parent / old.name[1 : -len(".old")]
        if folder.exists():
            shutil.rmtree(old)
        else:
            old.rename(folder)
    for partial in parent.glob(".*.partial"):
        shutil.rmtree(partial)


@contextmanager
def _owned(partial: Path, work: str | None) -> Iterator[None]:
    """Hold the folder `partial`: with what a killed process left of the same work, else empty."""
    partial.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(partial, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunLockedError(
                f"{partial}: another process is writing there; wait for it, or give another place"
            ) from None
        mark = partial / _WORK
        if work is None or not mark.is_file() or mark.read_text(encoding="utf-8") != work:
            for left in partial.iterdir():
                shutil.rmtree(left) if left.is_dir() else left.unlink()
            if work is not None:
                write_whole(mark, work)
        yield
    finally:
        os.close(descriptor)


def take_lock(file: IO[str], kind: int, folder: Path, patience: float) -> None:
    """Take the lock of an open file of `folder`, of a `kind` of fcntl's, within `patience` seconds.

    The operating system drops it with the process, so a killed one leaves none behind.

    Raises:
        RunLockedError: another process holds it.
    """
    until = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= until:
                raise RunLockedError(
                    f"{folder}: another process is at work there; wait for it, or give another "
                    "folder"
                ) from None
        time.sleep(0.1)


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file; a torn last line (a killed writer) is left out.

    Raises:
        DataError: a line that is no JSON object; it is named.
    """
    if not path.exists():
        return []
    # Bytes, as a line may be torn inside a character; and no splitlines(), which would cut at
    # U+2028 and the like within a text.
    *lines, _ = path.read_bytes().split(b"\n")
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict):
            raise DataError(f"{path}, line {number}: damaged, no JSON object; remove that line")
        records.append(record)
    return records
