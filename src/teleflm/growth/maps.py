"""Growth as a map of axes: where each old entry goes, and which entries are new."""

from dataclasses import dataclass

import torch
from torch import Tensor

from teleflm.config.model import ModelConfig
from teleflm.errors import GrowthError
from teleflm.model.axes import Axis, Parameter, in_layer, layer_of, parameter_of
from teleflm.model.region import Region, region_shape

# Growing changes sizes; these say what function the sizes belong to.
_MUST_STAY = ("head_dim", "vocab_size", "rope_theta", "rms_norm_eps", "mup_base_width")
_MUST_NOT_SHRINK = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_key_value_heads",
    "queries_per_group",
)


@dataclass(frozen=True)
class GrowthMap:
    """From `parent`'s axes to `child`'s; `layers[i]` is where the parent's layer i goes."""

    parent: ModelConfig
    child: ModelConfig
    layers: tuple[int, ...]

    def is_old(self, axis: Axis) -> Tensor:
        """Boolean (child's size of the axis,): the entries that the parent has.

        Heads act on their structure: old group j stays group j with its old queries first, and
        new queries and new groups follow.
        """
        if axis not in (Axis.HEADS, Axis.KV_HEADS):
            return torch.arange(axis.size(self.child)) < axis.size(self.parent)
        queries, old_queries = 1, 1
        if axis is Axis.HEADS:
            queries, old_queries = self.child.queries_per_group, self.parent.queries_per_group
        old = torch.zeros(
            self.child.num_key_value_heads, queries, self.child.head_dim, dtype=torch.bool
        )
        old[: self.parent.num_key_value_heads, :old_queries] = True
        return old.flatten()

    def index(self, axis: Axis, part: slice) -> Tensor:
        """Where the parent's entries stand in a part of the child's `axis`."""
        return self.is_old(axis)[part].nonzero().squeeze(1)

    def parent_region(self, name: str, region: Region) -> tuple[str, Region] | None:
        """The parent's tensor and the region of it that a region of the child's `name` holds; None
        in a new layer."""
        source = self.parent_name(name)
        if source is None:
            return None
        parts = []
        for axis, part in zip(parameter_of(name).axes, region, strict=True):
            old = self.is_old(axis)
            # The map keeps the order, so that a stretch of the child has a stretch of the parent.
            start = int(old[: part.start].sum())
            parts.append(slice(start, start + int(old[part].sum())))
        return source, tuple(parts)

    def grows(self, axis: Axis) -> bool:
        """Whether the axis has new entries."""
        return axis.size(self.child) > axis.size(self.parent)

    def parent_name(self, name: str) -> str | None:
        """The parent's tensor that the child's tensor `name` holds; None in a new layer."""
        layer = layer_of(name)
        if layer is None:
            return name
        return in_layer(name, self.layers.index(layer)) if layer in self.layers else None

    def is_new(self, name: str, parameter: Parameter, region: Region) -> Tensor:
        """Boolean of the region's shape: entries of tensor `name` that the parent lacks."""
        if self.parent_name(name) is None:
            return torch.ones(region_shape(region), dtype=torch.bool)
        new = torch.zeros(region_shape(region), dtype=torch.bool)
        for dim, axis in enumerate(parameter.axes):
            line = ~self.is_old(axis)[region[dim]]
            new |= line.reshape([-1 if d == dim else 1 for d in range(new.ndim)])
        return new


def check_growth(parent: ModelConfig, child: ModelConfig) -> None:
    """Refuse what masks cannot do.

    Raises:
        GrowthError: a field that must stay differs, or a size shrinks; both values are named.
    """
    for field in _MUST_STAY:
        old, new = getattr(parent, field), getattr(child, field)
        if old != new:
            raise GrowthError(f"{field} must stay {old} in a growth, the target has {new}")
    for field in _MUST_NOT_SHRINK:
        old, new = getattr(parent, field), getattr(child, field)
        if new < old:
            hint = ""
            if field == "queries_per_group":
                hint = "; give the target fewer num_key_value_heads or more num_attention_heads"
            raise GrowthError(f"{field} would shrink from {old} to {new}; growth only adds{hint}")
