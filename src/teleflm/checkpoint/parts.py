"""Parts of tensors, in the terms of PyTorch's distributed checkpoint."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint import DefaultSavePlanner
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    MetadataIndex,
    TensorProperties,
)
from torch.distributed.checkpoint.planner import TensorWriteData, WriteItem, WriteItemType

from teleflm.growth.state import KINDS, Kind, TrainingState
from teleflm.model.axes import parameter_names, parameter_of
from teleflm.model.region import Region, entries, region_shape, whole


def stored_name(kind: Kind, name: str) -> str:
    """What a checkpoint calls a tensor: weights keep their plain names."""
    return name if kind == "weights" else f"{kind}.{name}"


@dataclass(frozen=True)
class Part:
    """A tensor's region and what it holds: `tensor` has the shape of `region`, `shape` is that of
    the whole. It stands in a state dict where a DTensor else would."""

    tensor: Tensor
    region: Region
    shape: tuple[int, ...]

    @property
    def chunk(self) -> ChunkStorageMetadata:
        """Where it lies."""
        offsets = torch.Size(side.start for side in self.region)
        return ChunkStorageMetadata(offsets, torch.Size(region_shape(self.region)))

    def __create_write_items__(self, name: str, _: object) -> list[WriteItem]:
        if not entries(self.region):
            return []
        data = TensorWriteData(
            chunk=self.chunk,
            properties=TensorProperties(dtype=self.tensor.dtype),
            size=torch.Size(self.shape),
        )
        # Ranks that hold the same part give it the same index, and one of them is let write it.
        index = MetadataIndex(name, self.chunk.offsets)
        return [WriteItem(index=index, type=WriteItemType.SHARD, tensor_data=data)]


class PartPlanner(DefaultSavePlanner):
    """Plans the saving of a flat mapping from names to parts."""

    def __init__(self) -> None:
        super().__init__(flatten_state_dict=False, flatten_sharded_tensors=False)

    def lookup_object(self, index: MetadataIndex) -> Any:
        return self.state_dict[index.fqn].tensor


def parts_of(state: TrainingState) -> dict[str, Part]:
    """All that this process holds of a state, by the names in the checkpoint."""
    parts = {}
    for kind in KINDS:
        for name, tensor in state.tensors(kind).items():
            shape = parameter_of(name).shape(state.model)
            region = whole(shape) if state.regions is None else state.regions[name]
            parts[stored_name(kind, name)] = Part(tensor, region, shape)
    return parts


def all_names(state: TrainingState) -> set[str]:
    """The names in a whole checkpoint of a state, whoever holds what."""
    return {stored_name(kind, name) for kind in KINDS for name in parameter_names(state.model)}
