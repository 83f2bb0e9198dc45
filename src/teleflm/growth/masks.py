"""Masked Structural Growth (arXiv 2305.02869) on a live network, built to fold.

The masks multiply the weights that carry them (row and column masks of the writers of the stream
and of the readers of heads and FFN units), so the masked network *is* the folded one.
"""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from teleflm.growth.event import Event
from teleflm.growth.fold import DimMask, dim_masks, growth_map
from teleflm.growth.ramp import Ramp
from teleflm.model.axes import Axis, parameter_of
from teleflm.model.network import RMSNorm, TeleFLM

_DIM_BUFFERS = ("row_mask", "column_mask")


class Masks:
    """The open masks of a network, or of some pipeline stages of one.

    Buffers are set once and then moved in place, so that compiled code sees the same tensors with
    new values. Dims that are held back alike share one buffer.

    Args:
        networks: what they hold back.
        event: the growth.
        like: any weight, for the masks' dtype and device.
        spread: a mask along a whole axis, placed as the weights on this rank are.
    """

    def __init__(
        self,
        networks: Sequence[TeleFLM],
        event: Event,
        like: Tensor,
        spread: Callable[[Tensor, Axis], Tensor],
    ) -> None:
        self._growth = growth_map(event)
        self._like, self._spread = like, spread
        self._fraction = like.new_ones(())
        self._norms: list[RMSNorm] = []
        self._shared: dict[DimMask, Tensor] = {}
        self._holders: list[tuple[nn.Module, str]] = []
        for network in networks:
            self._hold_back(network)

    def _hold_back(self, network: TeleFLM) -> None:
        for name, _ in network.named_parameters():
            module, parameter = network.get_submodule(name.rpartition(".")[0]), parameter_of(name)
            if parameter.is_stream_gain:
                assert isinstance(module, RMSNorm)
                module.width_fraction = self._fraction
                self._norms.append(module)
            # A bias has the mask of its weight's rows, and sets it once more.
            masks = dim_masks(self._growth, name, parameter)
            for buffer, mask in zip(_DIM_BUFFERS, masks, strict=False):
                if mask is None:
                    continue
                if mask not in self._shared:
                    self._shared[mask] = self._values(mask, 0.0)
                setattr(module, buffer, self._shared[mask])
                self._holders.append((module, buffer))

    def _values(self, mask: DimMask, progress: float) -> Tensor:
        return self._spread(mask.values(self._growth, progress).to(self._like), mask.axis)

    def move(self, ramp: Ramp) -> None:
        """Set every mask and norm statistic to this moment of the ramp."""
        self._fraction.fill_(ramp.width_fraction)
        for mask, shared in self._shared.items():
            shared.copy_(self._values(mask, ramp.progress))

    def remove(self) -> None:
        """Make the network an ordinary one again."""
        for norm in self._norms:
            norm.width_fraction = None
        for module, buffer in self._holders:
            setattr(module, buffer, None)
