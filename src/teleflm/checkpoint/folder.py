"""A folder of weight files that no memory holds, made and written piece by piece, by one
process or many.

What is on disk when the writer is interrupted stays, and the same work goes on from there.
"""

import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor

from teleflm.checkpoint.manifest import FileRecord, record_file
from teleflm.checkpoint.writer import Block, write_file
from teleflm.errors import MachineError
from teleflm.files import naming_full_disk, write_whole, written_aside
from teleflm.model.region import Region, region_shape, row_stretches
from teleflm.parallel.ranks import Ranks

# A piece is what one thread holds at a time.
_PIECE_BYTES = 8 << 20
AT_ONCE = 2
Files = Mapping[str, Sequence[Block]]
Records = Mapping[str, FileRecord]
Tell = Callable[[int], object]


def in_pieces(
    read: Callable[[Region], Tensor], region: Region, dtype: torch.dtype
) -> Iterator[Tensor]:
    """A region of a tensor of that dtype, some rows at a time, each read when its turn comes."""
    first = region[0].start
    for rows, *rest in row_stretches(region_shape(region), _PIECE_BYTES // dtype.itemsize):
        yield read((slice(first + rows.start, first + rows.stop), *rest))


def write_folder(
    folder: Path,
    files: Files,
    complete: Callable[[Path, Records], object],
    *,
    work: str | None,
    ranks: Ranks,
    tell: Tell,
    headers: Mapping[str, bytes] = MappingProxyType({}),
) -> None:
    """Write a folder, which appears whole or not at all; all ranks do, each a share of the files.

    Args:
        folder: where, on a disk that all ranks see; what is there is replaced.
        files: their blocks by name, the same on all ranks.
        complete: is given the written folder and the records of the files, on the first rank, and
            adds what else belongs there.
        work: stands for all values; what an interrupted writer of the same files of the same work
            finished is taken. None where nothing does: then nothing is left behind.
        ranks: who writes.
        tell: is told the bytes of tensors that this rank wrote since the last call.
        headers: what the files begin with that are not safetensors, by name; the same on all ranks.

    Raises:
        MachineError: there is too little room on the disk, or it fails.
        RunLockedError: another process is writing the same folder.
    """
    begins = {name: hashlib.sha256(header).hexdigest() for name, header in headers.items()}
    values = f"{work}{files}{begins or ''}"
    same = hashlib.sha256(values.encode()).hexdigest() if work is not None else None
    with ExitStack() as aside, naming_full_disk(folder):

        def begin() -> Path:
            partial = aside.enter_context(written_aside(folder, same))
            _check_room(folder, partial, files)
            return partial

        def finish() -> None:
            complete(partial, records)
            for name in files:
                _noted(partial / name).unlink()
            aside.close()

        partial = ranks.from_first(begin)
        mine = list(files)[ranks.rank :: ranks.count]
        records: dict[str, FileRecord] = {}
        for found in ranks.gathered(
            lambda: _write_files(partial, {name: files[name] for name in mine}, headers, tell)
        ):
            records |= found
        ranks.from_first(finish)


def _check_room(folder: Path, partial: Path, files: Files) -> None:
    missing = [files[name] for name in files if not _noted(partial / name).is_file()]
    needed = sum(block.bytes for blocks in missing for block in blocks)
    free = shutil.disk_usage(partial).free
    if needed > free:
        raise MachineError(
            f"{folder}: needs {needed / 1e9:,.1f} GB and {free / 1e9:,.1f} GB are free on that "
            "disk; make room or give another place"
        )


def _write_files(partial: Path, files: Files, headers: Mapping[str, bytes], tell: Tell) -> Records:
    def write(name: str) -> FileRecord:
        path = partial / name
        record = _written(path)
        if record is not None:
            tell(sum(block.bytes for block in files[name]))
            return record
        record = write_file(path, files[name], tell, headers.get(name))
        write_whole(_noted(path), record.model_dump_json())
        return record

    with ThreadPoolExecutor(AT_ONCE) as pool:
        try:
            return dict(zip(files, pool.map(write, files), strict=True))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _noted(path: Path) -> Path:
    """Where the size and checksum of a file are noted once it is whole."""
    return path.with_suffix(".json")


def _written(path: Path) -> FileRecord | None:
    """The record of a file that an earlier writer finished, if it is still what that wrote."""
    try:
        record = FileRecord.model_validate_json(_noted(path).read_bytes())
        return record if record_file(path) == record else None
    except (OSError, ValueError):
        return None
