"""The key-value cache of generation."""

from torch import Tensor


class LayerCache:
    """Keys and values of one layer, (B, G, capacity, d), filled from the left.

    The space is taken once, at the first append: growing by concatenation would copy the cache
    for every token.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.length = 0
        self._keys: Tensor | None = None
        self._values: Tensor | None = None

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Add the keys and values (B, G, S, d) of S new positions; return all so far.

        Raises ValueError where they are more than there is room for.
        """
        if self.length + k.shape[2] > self.capacity:
            # A slice cut short would take a single position in silence, as it broadcasts.
            raise ValueError(
                f"{self.length} cached and {k.shape[2]} new positions in a cache of {self.capacity}"
            )
        if self._keys is None or self._values is None:
            shape = (k.shape[0], k.shape[1], self.capacity, k.shape[3])
            self._keys, self._values = k.new_empty(shape), v.new_empty(shape)
        start, self.length = self.length, self.length + k.shape[2]
        self._keys[:, :, start : self.length] = k
        self._values[:, :, start : self.length] = v
        return self._keys[:, :, : self.length], self._values[:, :, : self.length]


def cached_length(cache: list[LayerCache] | None) -> int:
    """Positions that the cache holds."""
    return cache[0].length if cache else 0


def new_cache(layers: int, capacity: int) -> list[LayerCache]:
    """An empty cache for `capacity` positions."""
    return [LayerCache(capacity) for _ in range(layers)]
