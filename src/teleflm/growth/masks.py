"""Masked Structural Growth (arXiv 2305.02869) on a live network, built to fold.

The masks multiply the weights that carry them (row and column masks of the writers of the stream
and of the readers of heads and FFN units), so the masked network *is* the folded one.
"""

from torch import Tensor, nn

from teleflm.growth.event import Event
from teleflm.growth.fold import DimMask, dim_masks, growth_map
from teleflm.growth.ramp import Ramp
from teleflm.model.axes import parameter_of
from teleflm.model.network import RMSNorm, TeleFLM

_DIM_BUFFERS = ("row_mask", "column_mask")


class Masks:
    """The open masks of a network.

    Buffers are set once and then moved in place, so that compiled code sees the same tensors with
    new values. Dims that are held back alike share one buffer.
    """

    def __init__(self, network: TeleFLM, event: Event) -> None:
        self._growth = growth_map(event)
        self._norms = [m for m in network.modules() if isinstance(m, RMSNorm)]
        weight = network.lm_head.weight
        self._fraction = weight.new_ones(())
        for norm in self._norms:
            norm.width_fraction = self._fraction
        self._shared: dict[DimMask, Tensor] = {}
        self._holders: list[tuple[nn.Module, str]] = []
        for name, _ in network.named_parameters():
            module = network.get_submodule(name.removesuffix(".weight"))
            for buffer, mask in zip(
                _DIM_BUFFERS, dim_masks(self._growth, name, parameter_of(name)), strict=False
            ):
                if mask is None:
                    continue
                if mask not in self._shared:
                    self._shared[mask] = mask.values(self._growth, 0.0).to(weight)
                setattr(module, buffer, self._shared[mask])
                self._holders.append((module, buffer))

    def move(self, ramp: Ramp) -> None:
        """Set every mask and norm statistic to this moment of the ramp."""
        self._fraction.fill_(ramp.width_fraction)
        for mask, shared in self._shared.items():
            shared.copy_(mask.values(self._growth, ramp.progress))

    def remove(self) -> None:
        """Make the network an ordinary one again."""
        for norm in self._norms:
            norm.width_fraction = None
        for module, buffer in self._holders:
            setattr(module, buffer, None)
