"""Saving a state that no memory holds: made and written piece by piece, by one process or many.

What is on disk when the writer is interrupted stays, and the same work goes on from there.
"""

import hashlib
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist

from teleflm.checkpoint.manifest import FileRecord, manifest_of, record_file
from teleflm.checkpoint.parts import stored_name
from teleflm.checkpoint.save import refuse_existing, write_manifest
from teleflm.checkpoint.writer import Block, write_file
from teleflm.errors import MachineError
from teleflm.files import naming_full_disk, write_whole, written_aside
from teleflm.growth.state import KINDS, Kind, LazyState
from teleflm.model.axes import parameter_names, parameter_of
from teleflm.model.region import Region, entries, region_shape, row_stretches
from teleflm.parallel.ranks import Ranks

# A piece is what one thread holds at a time; files are small enough to lose one, and no smaller.
_PIECE_BYTES = 8 << 20
_FILE_BYTES = 512 << 20
AT_ONCE = 2


@dataclass(frozen=True)
class _Piece:
    """Some rows of a tensor."""

    kind: Kind
    name: str
    region: Region
    dtype: torch.dtype

    @property
    def bytes(self) -> int:
        return entries(self.region) * self.dtype.itemsize

    @property
    def stored_name(self) -> str:
        return stored_name(self.kind, self.name)


def write_state(
    folder: Path,
    state: LazyState,
    tokenizer: Path | None,
    *,
    force: bool = False,
    group: dist.ProcessGroup | None = None,
    tell: Callable[[int], object] = lambda _: None,
) -> None:
    """Write a checkpoint of `state`; where `torch.distributed` is initialised, all ranks do.

    Args:
        folder: where, on a disk that all ranks see.
        state: what to save; read piece by piece, the same on all ranks.
        tokenizer: a folder with tokenizer files that travel with the model.
        force: replace what is there.
        group: a process group that carries CPU tensors (gloo), the world's where None.
        tell: is told the bytes that this rank made since the last call, of `state_bytes` for it.

    Raises:
        CheckpointError: something is there already.
        MachineError: there is too little room on the disk, or it fails.
        RunLockedError: another process is writing the same checkpoint.
    """
    ranks = Ranks(group)
    files = _files(state)
    manifest = manifest_of(state, None, {})
    # The same files of the same growth of the same parent.
    work = hashlib.sha256(f"{manifest.model_dump_json()}{files}".encode()).hexdigest()
    with ExitStack() as aside, naming_full_disk(folder):

        def begin() -> Path:
            refuse_existing(folder, force)
            partial = aside.enter_context(written_aside(folder, work))
            _check_room(folder, partial, files)
            return partial

        def complete() -> None:
            for name in files:
                _noted(partial / name).unlink()
            write_manifest(partial, manifest.model_copy(update={"files": records}), tokenizer)
            aside.close()

        partial = ranks.from_first(begin)
        mine = list(files)[ranks.rank :: ranks.count]
        records: dict[str, FileRecord] = {}
        for found in ranks.gathered(
            lambda: _write_files(partial, {name: files[name] for name in mine}, state, tell)
        ):
            records |= found
        ranks.from_first(complete)


def state_bytes(state: LazyState, rank: int = 0, ranks: int = 1) -> int:
    """What a rank writes of a state, but for headers: with one, what a checkpoint takes on disk."""
    mine = list(_files(state).values())[rank::ranks]
    return sum(piece.bytes for pieces in mine for piece in pieces)


def _files(state: LazyState) -> dict[str, list[_Piece]]:
    """The pieces of each file, in the order of the model."""
    files: list[list[_Piece]] = []
    held = _FILE_BYTES
    for piece in _pieces(state):
        # A file has a name once only, so that the next rows of a tensor begin another one.
        if held + piece.bytes > _FILE_BYTES or any(
            piece.stored_name == other.stored_name for other in files[-1]
        ):
            files.append([])
            held = 0
        files[-1].append(piece)
        held += piece.bytes
    return {f"part-{number:05d}.safetensors": pieces for number, pieces in enumerate(files)}


def _pieces(state: LazyState) -> Iterator[_Piece]:
    for name in parameter_names(state.model):
        shape = parameter_of(name).shape(state.model)
        empty = tuple(slice(0, 0) for _ in shape)
        for kind in KINDS:
            dtype = state.read(kind, name, empty).dtype
            for region in row_stretches(shape, _FILE_BYTES // dtype.itemsize):
                yield _Piece(kind, name, region, dtype)


def _check_room(folder: Path, partial: Path, files: dict[str, list[_Piece]]) -> None:
    missing = [files[name] for name in files if not _noted(partial / name).is_file()]
    needed = sum(piece.bytes for pieces in missing for piece in pieces)
    free = shutil.disk_usage(partial).free
    if needed > free:
        raise MachineError(
            f"{folder}: needs {needed / 1e9:,.1f} GB and {free / 1e9:,.1f} GB are free on that "
            "disk; make room or give another place"
        )


def _write_files(
    partial: Path,
    files: dict[str, list[_Piece]],
    state: LazyState,
    tell: Callable[[int], object],
) -> dict[str, FileRecord]:
    def write(name: str) -> FileRecord:
        path = partial / name
        record = _written(path)
        if record is not None:
            tell(sum(piece.bytes for piece in files[name]))
            return record
        record = write_file(path, [_block(piece, state, tell) for piece in files[name]])
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


def _block(piece: _Piece, state: LazyState, tell: Callable[[int], object]) -> Block:
    def values() -> Iterator[torch.Tensor]:
        first = piece.region[0].start
        few = _PIECE_BYTES // piece.dtype.itemsize
        for rows, *rest in row_stretches(region_shape(piece.region), few):
            region = (slice(first + rows.start, first + rows.stop), *rest)
            value = state.read(piece.kind, piece.name, region)
            yield value
            tell(value.nbytes)

    return Block(
        name=piece.stored_name,
        offsets=tuple(side.start for side in piece.region),
        shape=region_shape(piece.region),
        dtype=piece.dtype,
        values=values,
    )
