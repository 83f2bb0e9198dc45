"""What computes a loss and its gradients: one process, or a mesh of ranks."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from teleflm.config.model import ModelConfig
from teleflm.config.run import Precision, Recomputation
from teleflm.model.axes import Axis
from teleflm.model.batch import IGNORED, Batch
from teleflm.model.loss import TokenScores, loss_sum, network_scores
from teleflm.model.network import TeleFLM
from teleflm.model.precision import autocast
from teleflm.model.region import Region, whole
from teleflm.parallel.blocks import wrap_blocks
from teleflm.parallel.materialise import materialise
from teleflm.parallel.shard import Shard, square_norm


class Engine(Protocol):
    """Networks, the shards of their parameters, and how a batch goes through them.

    Attributes:
        networks: this rank's, one a pipeline stage; together with those of the other ranks the
            whole model.
        shards: this rank's parameters.
        regions: where they stand in the model's tensors; None where they are all of them.
        device: where it computes.
        data_rank, data_ranks: which share of the batch this rank reads.
    """

    networks: list[TeleFLM]
    shards: list[Shard]
    regions: Mapping[str, Region] | None
    device: torch.device
    data_rank: int
    data_ranks: int

    def counted(self, batch: Batch) -> int:
        """How many targets count in the batches of all data-parallel ranks, of which this is one's;
        alike on each."""

    def accumulate(self, batch: Batch, predictions: int) -> Tensor:
        """Add the gradient of Σ loss / predictions.

        Args:
            batch: what this rank reads.
            predictions: of all ranks together.

        Returns:
            Σ loss / predictions over all ranks, alike on each, 0-dim float64 without a graph.
        """

    def loss_sum(self, batch: Batch) -> float:
        """Σ loss in nats over the targets that count of a batch that all ranks have alike."""

    def token_scores(self, batch: Batch) -> TokenScores:
        """Of the targets of a batch that all ranks have alike, on each of them. With many ranks S
        is the same in every call."""

    def gradient_norm(self, weights: Sequence[float]) -> Tensor:
        """The norm of the whole gradient, 0-dim, alike on each rank; in its square each of the
        shards counts `weights` times."""

    def spread(self, values: Tensor, axis: Axis) -> Tensor:
        """A growth mask along the whole `axis` as the weights that it multiplies are placed."""


class OneProcess:
    """The whole model in this process.

    Args:
        model: its shape; the weights are yet to be filled in.
        weights: dtype of the weights.
        device: where to compute.
        precision: what products are computed in.
        micro_batch: sequences at a time; None for all at once.
        recomputation: what forward keeps of a block.
        compiled: whether each block goes through torch.compile.
    """

    data_rank, data_ranks = 0, 1
    regions: Mapping[str, Region] | None = None

    def __init__(
        self,
        model: ModelConfig,
        weights: torch.dtype,
        device: torch.device,
        *,
        precision: Precision,
        micro_batch: int | None = None,
        recomputation: Recomputation = "none",
        compiled: bool = False,
    ) -> None:
        self.device = device
        self._precision = precision
        self._micro_batch = micro_batch
        with torch.device("meta"):
            network = TeleFLM(model).to(weights)
        wrap_blocks(network, recomputation, compiled=compiled)
        materialise(network, network, model, device)
        self.networks = [network]
        self.shards = [
            Shard(name, weight, weight, whole(weight.shape), is_counted=True)
            for name, weight in network.named_parameters()
        ]

    def counted(self, batch: Batch) -> int:
        return int((batch.targets != IGNORED).sum())

    def accumulate(self, batch: Batch, predictions: int) -> Tensor:
        (network,) = self.networks
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for part in batch.split(self._micro_batch or batch.rows):
            with autocast(self.device, self._precision):
                loss = loss_sum(network, part) / predictions
            loss.backward()
            total += loss.detach()
        return total

    @torch.no_grad()
    def loss_sum(self, batch: Batch) -> float:
        (network,) = self.networks
        with autocast(self.device, self._precision):
            return loss_sum(network, batch.to(self.device)).item()

    @torch.no_grad()
    def token_scores(self, batch: Batch) -> TokenScores:
        (network,) = self.networks
        with autocast(self.device, self._precision):
            return network_scores(network, batch.to(self.device))

    def gradient_norm(self, weights: Sequence[float]) -> Tensor:
        return square_norm(self.shards, weights).sqrt()

    def spread(self, values: Tensor, axis: Axis) -> Tensor:
        return values
