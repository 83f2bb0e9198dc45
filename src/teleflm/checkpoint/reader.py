"""Reading parts out of a checkpoint's safetensors files, each file checked as it is read."""

import hashlib
import json
from collections import deque
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.checkpoint.planner_helpers import create_read_items_for_chunk_list

from teleflm.checkpoint.direct import direct_pieces
from teleflm.checkpoint.manifest import FileRecord, changed
from teleflm.checkpoint.parts import Part
from teleflm.checkpoint.writer import FILES_AT_ONCE
from teleflm.errors import CheckpointError


@dataclass(frozen=True)
class _Read:
    """`slices` of the tensor that a file has under `name` are to go into `target`; `whole` where
    that is all of it, in one piece of memory."""

    name: str
    slices: tuple[slice, ...]
    target: Tensor
    whole: bool


def read_parts(
    folder: Path, stored: Metadata, parts: Mapping[str, Part], verify: Mapping[str, FileRecord]
) -> None:
    """Fill the tensors of `parts`.

    Args:
        folder: the checkpoint.
        stored: what its files hold.
        parts: what is wanted of it, by name.
        verify: the files to check, whether they are wanted or not.

    Raises:
        CheckpointError: a file of `verify` was changed, or a part is not all there.
    """
    reads: dict[str, list[_Read]] = {name: [] for name in verify}
    for name, part in parts.items():
        known = stored.state_dict_metadata[name]
        assert isinstance(known, TensorStorageMetadata)
        items = create_read_items_for_chunk_list(name, known, [part.chunk])
        if sum(item.lengths.numel() for item in items) != part.tensor.numel():
            raise CheckpointError(f"{folder}: tensor {name!r} is not all there")
        for item in items:
            source = stored.storage_data[item.storage_index]
            target = part.tensor[_slices(item.dest_offsets, item.lengths)]
            whole = item.lengths == source.shape and target.is_contiguous()
            slices = _slices(item.storage_offsets, item.lengths)
            file = Path(source.relative_path).name
            reads.setdefault(file, []).append(_Read(name, slices, target, whole))

    def read(file: str) -> None:
        _read_file(folder / file, reads[file], verify.get(file))

    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        list(pool.map(read, reads))


def _slices(offsets: torch.Size, lengths: torch.Size) -> tuple[slice, ...]:
    return tuple(slice(o, o + length) for o, length in zip(offsets, lengths, strict=True))


def _read_file(path: Path, reads: list[_Read], record: FileRecord | None) -> None:
    if record is not None:
        # One pass for both where a tensor is wanted as it is stored: so it is on the layout that
        # the checkpoint was saved on, and in one process.
        straight = {read.name: read.target for read in reads if read.whole}
        if _digest(path, straight) != record.sha256:
            raise CheckpointError(changed(path))
        reads = [read for read in reads if not read.whole]
    if reads:
        with safe_open(path, framework="pt") as file:
            for read in reads:
                read.target.copy_(file.get_slice(read.name)[read.slices])


def _digest(path: Path, targets: Mapping[str, Tensor]) -> str:
    """SHA-256 of a file; on the way the bytes of some of its tensors are read into `targets`."""
    digest = hashlib.sha256()
    places = deque(_places(path, targets))
    at = 0
    for piece in direct_pieces(path):
        digest.update(piece)
        end = at + len(piece)
        while places and places[0][0] < end:
            start, data = places[0]
            first, last = max(start, at), min(start + len(data), end)
            data[first - start : last - start] = piece[first - at : last - at]
            if last < start + len(data):
                break
            places.popleft()
        at = end
    return digest.hexdigest()


def _places(path: Path, targets: Mapping[str, Tensor]) -> list[tuple[int, memoryview]]:
    """Where in a safetensors file the bytes of some of its tensors begin, in rising order, and the
    memory that they belong into."""
    if not targets:
        return []
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    places = [(8 + length + header[name]["data_offsets"][0], name) for name in targets]
    return [
        (start, targets[name].view(-1).view(torch.uint8).numpy().data)
        for start, name in sorted(places)
    ]
