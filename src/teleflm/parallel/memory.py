"""What a rank keeps in memory from step to step, as plain arithmetic."""

from dataclasses import dataclass

from teleflm.config.model import ModelConfig
from teleflm.model.region import entries
from teleflm.parallel.layout import Layout, padded_vocabulary, regions


@dataclass(frozen=True)
class Memory:
    """Bytes on one rank: the master weights, their gradients and Adam's two moments.

    What a step computes with comes on top: activations, gathered weights and, until they have
    travelled, whole gradients.
    """

    parameters: int
    gradients: int
    optimizer: int

    def __str__(self) -> str:
        return (
            f"parameters {size_text(self.parameters)}, gradients {size_text(self.gradients)}, "
            f"optimizer {size_text(self.optimizer)}"
        )


def memory(model: ModelConfig, layout: Layout, rank: int, bytes_each: int = 4) -> Memory:
    """What one rank of a layout keeps, the vocabulary's padding too.

    Args:
        model: its shape.
        layout: of all ranks.
        rank: which one.
        bytes_each: of a master weight, its gradient and each moment: 8 in fp64.
    """
    padded = padded_vocabulary(model.vocab_size, layout.tp)
    held = regions(layout, model.model_copy(update={"vocab_size": padded}), rank)
    weights = bytes_each * sum(map(entries, held.values()))
    return Memory(parameters=weights, gradients=weights, optimizer=2 * weights)


def largest_memory(model: ModelConfig, layout: Layout, bytes_each: int = 4) -> Memory:
    """What the rank keeps that keeps most."""
    # Within a stage none has more than the first: shares of tp are equal, shards of dp do not grow.
    firsts = range(0, layout.ranks, layout.ranks // layout.pp)
    found = (memory(model, layout, rank, bytes_each) for rank in firsts)
    return max(found, key=lambda each: each.parameters)


def size_text(count: int) -> str:
    """Bytes with three significant digits: 1.23 GB."""
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return f"{count / 1e3:.3g} kB"
