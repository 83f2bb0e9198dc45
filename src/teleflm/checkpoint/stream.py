"""Saving a state that no memory holds: made and written piece by piece, by one process or many."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch.distributed as dist

from teleflm.checkpoint.folder import Records, in_pieces, write_folder
from teleflm.checkpoint.manifest import manifest_of
from teleflm.checkpoint.parts import stored_name
from teleflm.checkpoint.save import refuse_existing, write_manifest
from teleflm.checkpoint.writer import Block
from teleflm.growth.state import KINDS, LazyState
from teleflm.model.axes import parameter_names, parameter_of
from teleflm.model.region import region_shape, row_stretches
from teleflm.parallel.ranks import Ranks

# Small enough to lose one, and no smaller.
_FILE_BYTES = 512 << 20


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
    manifest = manifest_of(state, None, {})

    def complete(written: Path, records: Records) -> None:
        write_manifest(written, manifest.model_copy(update={"files": records}), tokenizer)

    ranks.from_first(lambda: refuse_existing(folder, force))
    # The lineage says what the values are: it ends with the growth of a parent that it names.
    work = manifest.model_dump_json()
    write_folder(folder, _files(state), complete, work=work, ranks=ranks, tell=tell)


def state_bytes(state: LazyState, rank: int = 0, ranks: int = 1) -> int:
    """What a rank writes of a state, but for headers: with one, what a checkpoint takes on disk."""
    mine = list(_files(state).values())[rank::ranks]
    return sum(block.bytes for blocks in mine for block in blocks)


def _files(state: LazyState) -> dict[str, list[Block]]:
    """The blocks of each file, in the order of the model."""
    files: list[list[Block]] = []
    held = _FILE_BYTES
    for block in _blocks(state):
        # A file has a name once only, so that the next rows of a tensor begin another one.
        if held + block.bytes > _FILE_BYTES or any(block.name == other.name for other in files[-1]):
            files.append([])
            held = 0
        files[-1].append(block)
        held += block.bytes
    return {f"part-{number:05d}.safetensors": blocks for number, blocks in enumerate(files)}


def _blocks(state: LazyState) -> Iterator[Block]:
    for name in parameter_names(state.model):
        shape = parameter_of(name).shape(state.model)
        empty = tuple(slice(0, 0) for _ in shape)
        for kind in KINDS:
            read = partial(state.read, kind, name)
            dtype = read(empty).dtype
            for region in row_stretches(shape, _FILE_BYTES // dtype.itemsize):
                yield Block(
                    name=stored_name(kind, name),
                    offsets=tuple(side.start for side in region),
                    shape=region_shape(region),
                    dtype=dtype,
                    values=partial(in_pieces, read, region, dtype),
                )
