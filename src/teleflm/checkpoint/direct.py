"""Files written and read past the system's cache, with their SHA-256 on the way.

What a checkpoint holds is not wanted again soon, and copying it through the cache costs as much
time of the processor as its checksum does. Where a file system has no direct access, the same code
goes through the cache.
"""

import errno
import hashlib
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Direct access is in whole blocks, from memory that begins with one; a page is enough everywhere.
_BLOCK = 4096
_PIECE = 4 << 20


class DirectWriter:
    """Writes a new file from its beginning to its end.

    Args:
        descriptor: of the empty file, open for writing.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._memory = memoryview(mmap.mmap(-1, _PIECE))
        self._held = 0
        self._digest = hashlib.sha256()
        self.bytes = 0

    def write(self, data: memoryview) -> None:
        """Append bytes."""
        at = 0
        while at < len(data):
            part = data[at : at + _PIECE - self._held]
            self._memory[self._held : self._held + len(part)] = part
            self._held += len(part)
            at += len(part)
            if self._held == _PIECE:
                self._flush()

    def finish(self) -> str:
        """Bring everything to the disk; the SHA-256 of the file."""
        self._flush()
        # The last block was written whole.
        os.ftruncate(self._descriptor, self.bytes)
        os.fsync(self._descriptor)
        return self._digest.hexdigest()

    def _flush(self) -> None:
        self._digest.update(self._memory[: self._held])
        end = -(-self._held // _BLOCK) * _BLOCK
        at = 0
        while at < end:
            at += os.write(self._descriptor, self._memory[at:end])
        self.bytes += self._held
        self._held = 0


@contextmanager
def direct_writer(path: Path) -> Iterator[DirectWriter]:
    """A new file at `path`; call `finish` before it is closed."""
    with _opened(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as descriptor:
        yield DirectWriter(descriptor)


def direct_pieces(path: Path) -> Iterator[memoryview]:
    """The bytes of a file, some at a time; each piece holds until the next is asked for."""
    memory = memoryview(mmap.mmap(-1, _PIECE))
    with _opened(path, os.O_RDONLY) as descriptor:
        left = os.fstat(descriptor).st_size
        # Not up to an empty read: from within a block there may be none.
        while left > 0:
            got = os.readv(descriptor, [memory])
            yield memory[:got]
            left -= got or left


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    try:
        descriptor = os.open(path, flags | getattr(os, "O_DIRECT", 0), 0o666)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        descriptor = os.open(path, flags, 0o666)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
