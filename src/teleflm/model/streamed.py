"""A network whose weights are read when they are needed, some rows at a time.

It computes what the ordinary one does, in any precision, of a model that no memory holds.
"""

from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from teleflm.config.model import ModelConfig
from teleflm.model.axes import own_name, parameter_of
from teleflm.model.network import Embedding, Linear, RMSNorm, TeleFLM
from teleflm.model.region import Region, entries, row_stretches, whole
from teleflm.model.rope import Rope

_ENTRIES_AT_A_TIME = 8 << 20
ReadWeight = Callable[[str, Region], Tensor]


class Processes(Protocol):
    """Those that compute a network together: number `rank` of `count` has its share of the rows of
    each weight."""

    rank: int
    count: int

    def fill(self, tensor: Tensor, action: Callable[[], object]) -> None:
        """By `action` each sets its own entries of a tensor of zeros; all get all of them."""


class StreamedLinear(nn.Module):
    """y = x Wᵀ + b for x (…, in); W (out, in) is read anew in each call, b is kept."""

    def __init__(
        self,
        read: ReadWeight,
        name: str,
        shape: tuple[int, ...],
        processes: Processes,
        bias: Tensor | None,
    ) -> None:
        super().__init__()
        self._read, self._name, self._shape, self._processes = read, name, shape, processes
        self._bias = bias

    def forward(self, x: Tensor) -> Tensor:
        y = x.new_zeros(*x.shape[:-1], self._shape[0])

        def multiply() -> None:
            for region in _share(self._shape, self._processes):
                weight = self._read(self._name, region)
                y[..., region[0]] = F.linear(x, weight.to(x.dtype))

        self._processes.fill(y, multiply)
        return y if self._bias is None else y + self._bias


class StreamedEmbedding(nn.Module):
    """Rows of W (V, D) for token ids of any shape."""

    def __init__(
        self,
        read: ReadWeight,
        name: str,
        shape: tuple[int, ...],
        processes: Processes,
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        self._read, self._name, self._shape, self._processes = read, name, shape, processes
        self._dtype = dtype

    def forward(self, tokens: Tensor) -> Tensor:
        embedded = torch.zeros(*tokens.shape, self._shape[1], dtype=self._dtype)

        def look_up() -> None:
            for region in _share(self._shape, self._processes):
                rows = region[0]
                here = (tokens >= rows.start) & (tokens < rows.stop)
                if here.any():
                    weight = self._read(self._name, region)
                    embedded[here] = weight[tokens[here] - rows.start].to(self._dtype)

        self._processes.fill(embedded, look_up)
        return embedded


def _share(shape: tuple[int, ...], processes: Processes) -> list[Region]:
    """The stretches of a weight that this process reads, small enough that each has some."""
    at_a_time = min(_ENTRIES_AT_A_TIME, entries(whole(shape)) // processes.count)
    return row_stretches(shape, at_a_time)[processes.rank :: processes.count]


def streamed_network(
    model: ModelConfig, read: ReadWeight, dtype: torch.dtype, processes: Processes
) -> TeleFLM:
    """A network for reading only, that computes in `dtype`.

    Args:
        model: its shape, of an ordinary model (see `growth.fold.folded` for one inside a ramp).
        read: gives a region of a weight.
        dtype: of the residual stream and every product.
        processes: each of which calls this, and then the network on the same tokens.
    """
    with torch.device("meta"):
        network = TeleFLM(model)

    def line(name: str) -> Tensor:
        return read(name, whole(parameter_of(name).shape(model))).to(dtype)

    for path, module in list(network.named_modules()):
        name = own_name(model, f"{path}.weight")
        if isinstance(module, RMSNorm):
            module.weight = nn.Parameter(line(name), requires_grad=False)
        elif isinstance(module, Embedding | Linear):
            shape = tuple(module.weight.shape)
            streamed: nn.Module
            if isinstance(module, Embedding):
                streamed = StreamedEmbedding(read, name, shape, processes, dtype)
            else:
                bias = None if module.bias is None else line(f"{path}.bias")
                streamed = StreamedLinear(read, name, shape, processes, bias)
            network.set_submodule(path, streamed)
    network.model.rope = Rope(model)
    network.set_multipliers(model.input_mult, model.logit_multiplier)
    return network
