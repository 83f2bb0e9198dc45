"""Initialisation that does not depend on layout.

A value is a function of (seed, tensor name, row, column) alone: whoever holds some rows of a
tensor makes just those, and any split of the model gives the same numbers.
"""

import hashlib

import numpy as np
import torch
from torch import Tensor

from teleflm.config.model import ModelConfig
from teleflm.model.axes import parameter_names, parameter_of
from teleflm.model.network import TeleFLM

# Tele-FLM publishes "truncated normal" without the cut; three sigma is ours.
_CUT = 3.0
_DRAWS_PER_COUNTER = 4  # Philox4x64 gives four 64-bit words for each value of its counter


def truncated_normal(
    seed: int, name: str, shape: tuple[int, int], std: float, rows: slice = slice(None)
) -> Tensor:
    """Rows of a truncated-normal matrix, float32 (rows, columns), by inverse transform.

    Args:
        seed: the run's seed.
        name: the tensor's name; each has its own stream.
        shape: of the whole matrix.
        std: standard deviation before the cut at three of them.
        rows: which rows to make.
    """
    start, stop, _ = rows.indices(shape[0])
    columns = shape[1]
    stride = -(-columns // _DRAWS_PER_COUNTER) * _DRAWS_PER_COUNTER
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    bits = np.random.Philox(key=int.from_bytes(digest[:16], "little"))
    bits.advance(start * stride // _DRAWS_PER_COUNTER)
    uniform = np.random.Generator(bits).random((stop - start, stride))[:, :columns]
    edge = torch.special.ndtr(torch.tensor(-_CUT, dtype=torch.float64))
    probability = edge + torch.from_numpy(uniform) * (1 - 2 * edge)
    return (torch.special.ndtri(probability) * std).to(torch.float32)


def initial_value(model: ModelConfig, name: str, seed: int, rows: slice = slice(None)) -> Tensor:
    """The µP init of a parameter (or of some of its rows), float32; gains are ones."""
    parameter = parameter_of(name)
    shape = parameter.shape(model)
    if parameter.is_gain:
        return torch.ones(shape)[rows]
    return truncated_normal(seed, name, (shape[0], shape[1]), parameter.init_std(model), rows)


def initial_state(model: ModelConfig, seed: int) -> dict[str, Tensor]:
    """A fresh state dict, float32."""
    return {name: initial_value(model, name, seed) for name in parameter_names(model)}


def build_model(model: ModelConfig, state: dict[str, Tensor], dtype: torch.dtype) -> TeleFLM:
    """A network with these weights in `dtype`."""
    network = TeleFLM(model).to(dtype)
    network.load_state_dict(state)
    return network
