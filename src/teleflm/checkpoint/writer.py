"""Writing a rank's parts as safetensors files that distributed checkpoint reads.

PyTorch's own writer turns all tensors into bytes before the first is written, which takes their
memory again. Here the bytes stream from the tensors into the file, and into its checksum.
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.checkpoint import HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner, WriteItem
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future

from teleflm.checkpoint.direct import direct_writer
from teleflm.checkpoint.manifest import FileRecord

# SHA-256 cannot be split within a file, and a disk likes to have more than one thing to do: so a
# rank with much to write spreads it over files, one a thread.
FILES_AT_ONCE = 4
_WORTH_A_FILE = 64 << 20
_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
}


@dataclass(frozen=True)
class Block:
    """A tensor in a file, or a part of one.

    Attributes:
        name: what the file calls it.
        offsets: where it stands in the whole, for distributed checkpoint; None in the files of
            others, where it is the whole.
        shape, dtype: its own.
        values: gives it, some rows at a time.
    """

    name: str
    offsets: tuple[int, ...] | None
    shape: tuple[int, ...]
    dtype: torch.dtype
    values: Callable[[], Iterator[Tensor]] = field(repr=False)

    @property
    def bytes(self) -> int:
        """Its size."""
        return math.prod(self.shape) * self.dtype.itemsize


class StreamingWriter(HuggingFaceStorageWriter):
    """Writes into a folder that is there already; every file is synced.

    `records` is what was written by all ranks; it is known on the first rank only.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder), save_distributed=True)
        self._folder = folder
        self.records: dict[str, FileRecord] = {}

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        return plan

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        shard = plan.storage_data["shard_index"]
        files = {
            f"shard-{shard:05d}-{number}.safetensors": items
            for number, items in enumerate(_spread(plan.items))
        }

        def write(name: str) -> WriteResult:
            blocks = [_block(item, planner) for item in files[name]]
            record = write_file(self._folder / name, blocks)
            return WriteResult(MetadataIndex(name), record.bytes, record)

        with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
            results = list(pool.map(write, files))
        future: Future[list[WriteResult]] = Future()
        future.set_result(results)
        return future

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        for result in chain.from_iterable(results):
            self.records[result.index.fqn] = result.storage_data


def _bytes(item: WriteItem) -> int:
    assert item.tensor_data is not None
    data = item.tensor_data
    return data.chunk.sizes.numel() * data.properties.dtype.itemsize


def _spread(items: list[WriteItem]) -> list[list[WriteItem]]:
    """The items for each file, none for none: files of about the same size."""
    files = min(FILES_AT_ONCE, len(items), 1 + sum(map(_bytes, items)) // _WORTH_A_FILE)
    spread: list[list[WriteItem]] = [[] for _ in range(files)]
    sizes = [0] * files
    for item in sorted(items, key=_bytes, reverse=True):
        lightest = sizes.index(min(sizes))
        spread[lightest].append(item)
        sizes[lightest] += _bytes(item)
    return spread


def _block(item: WriteItem, planner: SavePlanner) -> Block:
    assert item.tensor_data is not None
    chunk = item.tensor_data.chunk

    def values() -> Iterator[Tensor]:
        tensor = planner.resolve_data(item)
        assert isinstance(tensor, Tensor)
        yield tensor

    return Block(
        name=item.index.fqn,
        offsets=tuple(chunk.offsets),
        shape=tuple(chunk.sizes),
        dtype=item.tensor_data.properties.dtype,
        values=values,
    )


def write_file(
    path: Path,
    blocks: Sequence[Block],
    tell: Callable[[int], object] = lambda _: None,
    header: bytes | None = None,
) -> FileRecord:
    """Write and sync a safetensors file, or one that begins with the given header; each value is
    asked for when its turn comes, and `tell` is told its bytes."""
    with direct_writer(path) as file:
        file.write(memoryview(_header(blocks) if header is None else header))
        for block in blocks:
            for tensor in block.values():
                plain = tensor.detach().cpu().contiguous()
                file.write(plain.view(-1).view(torch.uint8).numpy().data)
                tell(plain.nbytes)
        digest = file.finish()
        return FileRecord(bytes=file.bytes, sha256=digest)


def _header(blocks: Sequence[Block]) -> bytes:
    """What a safetensors file begins with, and where distributed checkpoint looks for offsets."""
    tensors, offsets, end = {}, {}, 0
    for block in blocks:
        start, end = end, end + block.bytes
        tensors[block.name] = {
            "dtype": _DTYPES[block.dtype],
            "shape": list(block.shape),
            "data_offsets": [start, end],
        }
        if block.offsets is not None:
            offsets[block.name] = {"saved_offsets": list(block.offsets)}
    own = {"format": "pt"}
    if offsets:
        own |= {"DCP_VERSION": "1.0", "DCP_SHARDING_INFO": json.dumps(offsets)}
    text = json.dumps({"__metadata__": own, **tensors}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
