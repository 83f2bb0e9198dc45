"""Initialisation that does not depend on layout.

A value is a function of (seed, tensor name, row, column) alone: whoever holds some rows of a
tensor makes just those, and any split of the model gives the same numbers.
"""

import hashlib
import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from teleflm.config.model import ModelConfig
from teleflm.model.axes import EMBEDDING, HEAD, parameter_names, parameter_of
from teleflm.model.network import TeleFLM
from teleflm.model.region import Region, cached_rows, region_shape, whole

# Tele-FLM publishes "truncated normal" without the cut; three sigma is ours.
_CUT = 3.0
_DRAWS_PER_COUNTER = 4  # Philox4x64 gives four 64-bit words for each value of its counter


def truncated_normal(
    seed: int,
    name: str,
    shape: tuple[int, int],
    std: float,
    rows: slice = slice(None),
    columns: slice = slice(None),
) -> Tensor:
    """A region of a truncated-normal matrix, float32 (rows, columns), by inverse transform.

    Args:
        seed: the run's seed.
        name: the tensor's name; each has its own stream.
        shape: of the whole matrix.
        std: standard deviation before the cut at three of them.
        rows, columns: which part to make; whole rows are drawn.
    """
    start, stop, _ = rows.indices(shape[0])
    drawn = uniform(seed, name, shape[1], slice(start, stop))[:, columns]
    # Φ⁻¹(p) = √2 erf⁻¹(2p − 1), and what lies within the cut has this probability.
    within = math.erf(_CUT / math.sqrt(2))
    value = drawn.mul(2 * within).sub_(within).erfinv_()
    return value.mul_(math.sqrt(2) * std).to(torch.float32)


def uniform(seed: int, name: str, columns: int, rows: slice) -> Tensor:
    """Rows of uniform draws in [0, 1), float64 (rows, columns), from the stream of a name."""
    stride = -(-columns // _DRAWS_PER_COUNTER) * _DRAWS_PER_COUNTER
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    bits = np.random.Philox(key=int.from_bytes(digest[:16], "little"))
    bits.advance(rows.start * stride // _DRAWS_PER_COUNTER)
    drawn = np.random.Generator(bits).random((rows.stop - rows.start, stride))
    return torch.from_numpy(drawn[:, :columns])


def initial_value(model: ModelConfig, name: str, seed: int, region: Region | None = None) -> Tensor:
    """The µP init of a parameter (or of a region of it), float32; gains are ones, biases zeros."""
    parameter = parameter_of(name)
    shape = parameter.shape(model)
    if region is None:
        region = whole(shape)
    if not parameter.is_matrix:
        return torch.full(region_shape(region), 1.0 if parameter.is_gain else 0.0)
    rows, columns = region
    value = torch.empty(region_shape(region))
    sizes, std = (shape[0], shape[1]), parameter.init_std(model)
    for few in cached_rows(rows, shape[1]):
        made = slice(few.start - rows.start, few.stop - rows.start)
        value[made] = truncated_normal(seed, name, sizes, std, few, columns)
    return value


def initial_state(
    model: ModelConfig, seed: int, regions: Mapping[str, Region] | None = None
) -> dict[str, Tensor]:
    """A fresh state dict, float32; of these regions, where they are given."""
    if regions is None:
        return {name: initial_value(model, name, seed) for name in parameter_names(model)}
    return {name: initial_value(model, name, seed, region) for name, region in regions.items()}


def build_model(model: ModelConfig, state: dict[str, Tensor], dtype: torch.dtype) -> TeleFLM:
    """A network with these weights in `dtype`."""
    network = TeleFLM(model).to(dtype)
    tied = {} if model.has_head else {HEAD: state[EMBEDDING]}
    network.load_state_dict({**state, **tied})
    return network
