"""A network whose weights are read when they are needed, some rows at a time.

It computes what the ordinary one does, in any precision, of a model that no memory holds.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from teleflm.config.model import ModelConfig
from teleflm.model.axes import parameter_of
from teleflm.model.network import TeleFLM
from teleflm.model.region import Region, row_stretches, whole
from teleflm.model.rope import rope_tables

_ENTRIES_AT_A_TIME = 8 << 20
ReadWeight = Callable[[str, Region], Tensor]


class StreamedLinear(nn.Module):
    """y = x Wᵀ for x (…, in); W (out, in) is read anew in each call."""

    def __init__(self, read: ReadWeight, name: str, shape: tuple[int, ...]) -> None:
        super().__init__()
        self._read, self._name, self._shape = read, name, shape

    def forward(self, x: Tensor) -> Tensor:
        y = x.new_empty(*x.shape[:-1], self._shape[0])
        for region in row_stretches(self._shape, _ENTRIES_AT_A_TIME):
            weight = self._read(self._name, region)
            y[..., region[0]] = F.linear(x, weight.to(x.dtype))
        return y


class StreamedEmbedding(nn.Module):
    """Rows of W (V, D) for token ids of any shape."""

    def __init__(
        self, read: ReadWeight, name: str, shape: tuple[int, ...], dtype: torch.dtype
    ) -> None:
        super().__init__()
        self._read, self._name, self._shape, self._dtype = read, name, shape, dtype

    def forward(self, tokens: Tensor) -> Tensor:
        embedded = torch.empty(*tokens.shape, self._shape[1], dtype=self._dtype)
        for region in row_stretches(self._shape, _ENTRIES_AT_A_TIME):
            rows = region[0]
            here = (tokens >= rows.start) & (tokens < rows.stop)
            if here.any():
                weight = self._read(self._name, region)
                embedded[here] = weight[tokens[here] - rows.start].to(self._dtype)
        return embedded


def streamed_network(model: ModelConfig, read: ReadWeight, dtype: torch.dtype) -> TeleFLM:
    """A network for reading only, that computes in `dtype`.

    Args:
        model: its shape, of an ordinary model (see `growth.fold.folded` for one inside a ramp).
        read: gives a region of a weight.
        dtype: of the residual stream and every product.
    """
    with torch.device("meta"):
        network = TeleFLM(model)
    for name, parameter in list(network.named_parameters()):
        path, shape = name.removesuffix(".weight"), tuple(parameter.shape)
        if parameter_of(name).is_gain:
            gain = nn.Parameter(read(name, whole(shape)).to(dtype), requires_grad=False)
            network.get_submodule(path).weight = gain
        elif path.endswith("embed_tokens"):
            network.set_submodule(path, StreamedEmbedding(read, name, shape, dtype))
        else:
            network.set_submodule(path, StreamedLinear(read, name, shape))
    network.model.cos, network.model.sin = rope_tables(model)
    network.set_multipliers(model.input_mult, model.logit_multiplier)
    return network
