"""The operators: what each puts into a tensor of the grown model.

- `mask`: an ordinary init, held back by masks that open (MSG, arXiv 2305.02869). Exact.
- `clone`: the old entries over again: W → tile(W)/i on i clones of an input (HyperCloning, arXiv
  2409.12903), m → m/o and v → v/o² on the o clones of an output. Exact.
- `zero`: an ordinary init behind zeros: in rows that write new entries of the stream, columns that
  read new heads and FFN units, branches of new layers; gain · √(d/D) with eps · d/D. Exact.
- `copy`: layers over again (G_stack, arXiv 2405.15319). Not exact: it is another function.

Each is a function of (growth, seed, tensor, region) and of the parent's entries that lie there, so
that any slice of a grown state can be made by itself.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from teleflm.config.growth import Operator
from teleflm.growth.event import Event, Lineage
from teleflm.growth.fold import growth_map, held_back
from teleflm.growth.maps import GrowthMap, taken
from teleflm.growth.shares import numbered, share_factors, share_out
from teleflm.growth.state import Kind, Read
from teleflm.model.axes import EMBEDDING, LAST_GAIN, Axis, Parameter, parameter_of, parameters_of
from teleflm.model.init import initial_value
from teleflm.model.region import Region, cached_rows, entries, inside, region_shape, whole

PROMISES: dict[Operator, str] = {
    "copy": "layers over again; another function",
    "clone": "entries over again; the same function",
    "zero": "new entries behind zeros; the same function",
    "mask": "new entries behind masks; the same function, and the same learning until they open",
}
"""What each operator does and keeps, for those who choose one."""


def grown_value(
    event: Event, read: Read, dtype: torch.dtype, kind: Kind, name: str, region: Region
) -> Tensor:
    """A region of one of a grown state's tensors.

    Args:
        event: the growth.
        read: from the state before it.
        dtype: of tensors that have nothing of that state.
        kind, name, region: what to make.

    Returns:
        A tensor of the region's shape, in the dtype of the parent's. Weights that are scaled by
        what is no power of two come in float64, so that nothing is lost yet.
    """
    growth = growth_map(event)
    if kind == "weights" and clones_of(growth, parameter_of(name))[1] > 1:
        return _shared_out(event, growth, read, name, region)
    source = growth.parent_region(name, region)
    if source is None:
        return _scaled(_new(event, growth, dtype, kind, name, region), growth, kind, name)
    kept = read(kind, *source)
    value = _new(event, growth, kept.dtype, kind, name, region)
    growth.place(value, name, region, kept)
    return _scaled(value, growth, kind, name)


def clones_of(growth: GrowthMap, parameter: Parameter) -> tuple[int, int]:
    """(o, i): clones on a parameter's output and input axis. The vocabulary counts 1, and the head
    reads the stream at full weight, as its multiplier is what the width divides."""
    widths = [growth.clones(axis) for axis in parameter.axes if axis is not Axis.VOCAB]
    return widths[0], widths[1] if parameter.is_matrix_like else 1


def clone_factors(lineage: Lineage, name: str) -> tuple[float, float]:
    """What clones make of Adam's eps for tensor `name`, and of its share of the squared gradient
    norm: 1/o and o/i over all growths by clones.

    Each of o clones of an output has 1/o of the gradient. So Adam's update is the parent's, and the
    norm that is clipped.
    """
    eps = weight = 1.0
    for event in lineage:
        if event.operator == "clone":
            outputs, inputs = clones_of(growth_map(event), parameter_of(name))
            eps /= outputs
            weight *= outputs / inputs
    return eps, weight


def keeps_trajectory(event: Event) -> bool:
    """Whether it would also learn as before, with masks held shut and clones kept equal.

    Clones ask for learning rates of 1/i, which are µP's where every width axis has as many. The
    standard parametrization has none that follow the width.
    """
    if event.operator != "clone":
        return event.operator == "mask"
    growth = growth_map(event)
    slowed = growth.child.mup_widths()[0] / growth.parent.mup_widths()[0]
    counts = {slowed, *(growth.clones(axis) for axis in (Axis.HIDDEN, Axis.HEADS, Axis.FFN))}
    rows = parameters_of(growth.child).items()
    scales = {weight_scale(growth, name, row) for name, row in rows}
    return len(counts) == 1 and scales == {1.0}


def new_lines(events: Sequence[Event], name: str) -> list[Tensor]:
    """For each axis of a tensor, boolean (size of the axis,): what one of these growths added, and
    what became of it in the growths after it. An entry is new where any of its lines is."""
    *before, event = events
    growth, axes = growth_map(event), parameter_of(name).axes
    source = growth.parent_name(name)
    if source is None:
        return [torch.ones(axis.size(growth.child), dtype=torch.bool) for axis in axes]
    lines = [~growth.is_old(axis) for axis in axes]
    if before:
        for line, axis, past in zip(lines, axes, new_lines(before, source), strict=True):
            old = ~line
            line[old] = past[growth.sources(axis)[old]]
    return lines


def on_any_line(lines: Sequence[Tensor]) -> Tensor:
    """Boolean of a tensor's shape from those of its dims: entries that lie on any of the lines."""
    *first, last = lines
    return last if not first else first[0][:, None] | last


def _new(
    event: Event, growth: GrowthMap, dtype: torch.dtype, kind: Kind, name: str, region: Region
) -> Tensor:
    """The region with its new entries in it; what the old ones hold is still to be placed."""
    if kind != "weights":
        return torch.zeros(region_shape(region), dtype=dtype)
    value = torch.empty(region_shape(region), dtype=dtype)
    for part in _with_new_entries(growth, name, region):
        made = initial_value(growth.child, name, event.seed, part)
        if event.operator == "zero":
            # What masks would hold back stays shut for good.
            made = held_back(made, growth, name, part, 0.0)
        value[inside(part, region)] = made
    return value


def _with_new_entries(growth: GrowthMap, name: str, region: Region) -> Iterator[Region]:
    """Parts of a region that together have all its new entries, and few old ones."""
    axes = parameter_of(name).axes
    if growth.parent_name(name) is None or len(axes) == 1:
        yield region
        return
    old = [growth.is_old(axis)[part] for axis, part in zip(axes, region, strict=True)]
    (rows, columns), (first_row, first_column) = region, (_first_new(line) for line in old)
    # Above the first new row there are new columns only; heads may have old ones behind new ones.
    above = slice(rows.start, rows.start + first_row)
    parts = (
        (above, slice(columns.start + first_column, columns.stop)),
        (slice(above.stop, rows.stop), columns),
    )
    yield from (part for part in parts if entries(part))


def _first_new(is_old: Tensor) -> int:
    """Where the first new entry stands, behind all where there is none."""
    new = (~is_old).nonzero()
    return int(new[0]) if len(new) else len(is_old)


def _scaled(value: Tensor, growth: GrowthMap, kind: Kind, name: str) -> Tensor:
    """θ → sθ asks for m/s and v/s²; o clones of an output have 1/o of its gradient each."""
    parameter = parameter_of(name)
    scale = weight_scale(growth, name, parameter)
    if kind == "weights":
        is_exact = math.frexp(scale)[0] == 0.5
        return value.mul_(scale) if is_exact else value.double().mul_(scale)
    divisor = scale * clones_of(growth, parameter)[0]
    if divisor == 1.0:
        return value
    return value.div_(divisor if kind == "exp_avg" else divisor * divisor)


def weight_scale(growth: GrowthMap, name: str, parameter: Parameter) -> float:
    """What a weight is multiplied by, so that the target's eps and multipliers suit it.

    Masks move all that themselves, over their ramp. Where there are none, the embedding takes the
    change of the input multiplier, the last norm's gain that of the logit multiplier, and every
    gain √(d/D) where new entries of the stream are zero; so does what goes into a norm by head,
    whose eps is then d/D of what it was too. The last gain makes up for what a tied head has from
    the embedding.
    """
    parent, child = growth.parent, growth.child
    if growth.operator == "mask":
        return 1.0
    scale, embedding = 1.0, parent.input_mult / child.input_mult
    if name == EMBEDDING:
        return embedding
    if growth.operator == "zero" and parameter.is_on_eps_scale(child):
        scale = (parent.hidden_size / child.hidden_size) ** 0.5
    if name == LAST_GAIN:
        scale *= parent.logit_multiplier / child.logit_multiplier / growth.clones(Axis.HIDDEN)
        if not child.has_head:
            scale /= embedding
    return scale


def _shared_out(event: Event, growth: GrowthMap, read: Read, name: str, region: Region) -> Tensor:
    """A region of a matrix that reads clones: rows over again, columns shared out."""
    assert event.symmetry is not None, "a growth by clones says what becomes of their symmetry"
    parameter = parameter_of(name)
    rows, columns = region
    outputs = growth.sources(parameter.axes[0])[rows]
    # Of no rows there is nothing to read, but its dtype.
    first, last = (int(outputs.min()), int(outputs.max()) + 1) if len(outputs) else (0, 0)
    every = whole(parameter.shape(growth.parent))[1]
    old = read("weights", name, (slice(first, last), every))
    inputs, clones = growth.sources(parameter.axes[1]), growth.clones(parameter.axes[1])
    order = numbered(inputs, clones)[columns]
    value = old.new_empty(region_shape(region))
    for few in cached_rows(rows, len(inputs)):
        made = slice(few.start - rows.start, few.stop - rows.start)
        factors = share_factors(
            event.symmetry, event.imbalance, old.shape[1], clones, (event.seed, name), few
        )
        shares = share_out(taken(old, 0, outputs[made] - first), clones, factors)
        value[made] = taken(shares.flatten(1), 1, order)
    return value
