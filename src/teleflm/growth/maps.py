"""Growth as a map of axes: which old entry each place holds, and which entries are new."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from teleflm.config.growth import Operator
from teleflm.config.model import ModelConfig
from teleflm.model.axes import Axis, in_layer, layer_of, parameter_of
from teleflm.model.region import Region


@dataclass(frozen=True)
class GrowthMap:
    """From `parent`'s axes to `child`'s by one operator.

    `layers[i]` is where the parent's layer i goes. `copies`, of a growth by `copy`, is for each of
    the child's layers the parent's that it holds.
    """

    operator: Operator
    parent: ModelConfig
    child: ModelConfig
    layers: tuple[int, ...]
    copies: tuple[int, ...] = ()

    def sources(self, axis: Axis) -> Tensor:
        """Int64 (child's size of the axis,): the parent's entry at each place, -1 where it is new.

        Heads act on their structure: old group j stays group j with its old queries first, and new
        queries and new groups follow; where they are clones, of the old ones in turn.
        """
        return _sources(self.operator == "clone", self.parent, self.child, axis)

    def is_old(self, axis: Axis) -> Tensor:
        """Boolean (child's size of the axis,): the entries that the parent has."""
        return self.sources(axis) >= 0

    def clones(self, axis: Axis) -> int:
        """How many entries of the child hold one of the parent's."""
        if self.operator != "clone":
            return 1
        return axis.size(self.child) // axis.size(self.parent)

    def grows(self, axis: Axis) -> bool:
        """Whether the axis has more entries than before."""
        return axis.size(self.child) > axis.size(self.parent)

    def parent_name(self, name: str) -> str | None:
        """The parent's tensor that the child's tensor `name` holds; None in a new layer."""
        layer = layer_of(name)
        if layer is None:
            return name
        if self.copies:
            return in_layer(name, self.copies[layer])
        return in_layer(name, self.layers.index(layer)) if layer in self.layers else None

    def parent_region(self, name: str, region: Region) -> tuple[str, Region] | None:
        """The parent's tensor and the least region of it that has all that a region of the child's
        `name` holds; None in a new layer."""
        source = self.parent_name(name)
        if source is None:
            return None
        parts = []
        for axis, part in zip(parameter_of(name).axes, region, strict=True):
            held = self.sources(axis)[part]
            held = held[held >= 0]
            parts.append(slice(int(held.min()), int(held.max()) + 1) if len(held) else slice(0, 0))
        return source, tuple(parts)

    def place(self, value: Tensor, name: str, region: Region, kept: Tensor) -> None:
        """Write the parent's entries, of its region `parent_region`, to where they stand in a
        region of the child's tensor."""
        scattered: tuple[slice | Tensor, ...] = ()
        for dim, axis in enumerate(parameter_of(name).axes):
            sources = self.sources(axis)[region[dim]]
            places = (sources >= 0).nonzero().squeeze(1)
            sources = sources[places]
            before = (slice(None),) * dim
            if len(sources):
                sources = sources - sources.min()
            kept = taken(kept, dim, sources)
            where = stretch(places)
            if isinstance(where, slice):
                value = value[(*before, where)]
            else:
                scattered = (*before, where)
        # Old heads alone may stand apart, and no tensor has them on both axes.
        value[scattered or ...] = kept


def taken(tensor: Tensor, dim: int, indices: Tensor) -> Tensor:
    """The entries of a dim at these indices; the usual orders are quicker than any."""
    where = stretch(indices)
    if isinstance(where, slice):
        return tensor[(*(slice(None),) * dim, where)]
    size = tensor.shape[dim]
    times, rest = divmod(len(indices), size)
    if rest == 0 and torch.equal(indices, torch.arange(len(indices)) % size):
        return tensor.repeat(*(times if d == dim else 1 for d in range(tensor.ndim)))
    return tensor.index_select(dim, indices)


def stretch(indices: Tensor) -> slice | Tensor:
    """A slice where the indices follow one another, which spares a copy."""
    if len(indices) == 0:
        return slice(0, 0)
    if bool((indices.diff() == 1).all()):
        return slice(int(indices[0]), int(indices[-1]) + 1)
    return indices


@lru_cache(maxsize=256)
def _sources(cloned: bool, parent: ModelConfig, child: ModelConfig, axis: Axis) -> Tensor:
    if axis not in (Axis.HEADS, Axis.KV_HEADS):
        return _in_turn(axis.size(child), axis.size(parent), cloned)
    queries = (parent.queries_per_group, child.queries_per_group) if axis is Axis.HEADS else (1, 1)
    group = _in_turn(child.num_key_value_heads, parent.num_key_value_heads, cloned)
    query = _in_turn(queries[1], queries[0], cloned)
    entry = torch.arange(parent.head_dim)
    head = group[:, None] * queries[0] + query
    place = head[:, :, None] * parent.head_dim + entry
    is_new = (group < 0)[:, None] | (query < 0)
    return place.masked_fill(is_new[:, :, None], -1).flatten()


def _in_turn(count: int, old: int, cloned: bool) -> Tensor:
    """The old entry at each of `count` places: the old ones first, then -1 or they again."""
    places = torch.arange(count)
    return places % old if cloned else places.masked_fill(places >= old, -1)
