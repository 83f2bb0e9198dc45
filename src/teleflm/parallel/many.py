"""The model on a mesh of ranks: tensor, pipeline and data parallel at once."""

from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from teleflm.config.model import ModelConfig
from teleflm.model.axes import Axis, own_name, parameter_of
from teleflm.model.batch import IGNORED, Batch
from teleflm.model.loss import TokenScores
from teleflm.model.region import Region
from teleflm.parallel.layout import micro_batch_of, regions, sharded_dim
from teleflm.parallel.mesh import Mesh
from teleflm.parallel.pipeline import Pipeline
from teleflm.parallel.recipe import Recipe, build_stages
from teleflm.parallel.shard import Shard, square_norm
from teleflm.parallel.stage import Stage
from teleflm.parallel.tensor import spread_mask
from teleflm.parallel.tied import tied_ends


class ManyRanks:
    """This rank's part of the model, see `Engine`.

    Args:
        model: its shape; the weights are yet to be filled in.
        mesh: the ranks.
        recipe: how the network is laid out on them.
    """

    def __init__(self, model: ModelConfig, mesh: Mesh, recipe: Recipe) -> None:
        layout, place = mesh.layout, mesh.place
        self.device = mesh.device
        self.data_rank = place.dp_replicate * layout.dp_shard + place.dp_shard
        self.data_ranks = layout.dp
        self._mesh = mesh
        self._share = recipe.training.global_batch // layout.dp
        self._micro_batch = micro_batch_of(recipe.training, layout, recipe.parallel.schedule)
        self._stages = build_stages(model, mesh, recipe)
        self.networks = [stage.network for stage in self._stages]
        held = regions(layout, model, mesh.rank)
        self.regions: Mapping[str, Region] | None = held
        self.shards = _shards(held, mesh, self._stages)
        self._pipeline, self._tied = None, None
        if layout.pp > 1:
            self._tied = tied_ends(model, mesh, self.shards)
            micro_batches = self._share // self._micro_batch
            self._pipeline = Pipeline(
                self._stages, mesh, recipe.parallel.schedule, micro_batches, recipe.gathered
            )

    def counted(self, batch: Batch) -> int:
        found = (batch.targets != IGNORED).sum()
        if self._mesh.place.tp > 0 or self._mesh.place.pp > 0:
            # They read what the first of them does.
            found = torch.zeros_like(found)
        dist.all_reduce(found)
        return int(found)

    def accumulate(self, batch: Batch, predictions: int) -> Tensor:
        if self._pipeline is not None:
            total = self._pipeline.accumulate(batch, predictions)
        else:
            total = self._accumulate(batch, predictions)
        for shard in self.shards:
            shard.take_gradient()
        if self._tied is not None:
            self._tied.sum_gradients()
        return self._sum_of_losses(total)

    def _accumulate(self, batch: Batch, predictions: int) -> Tensor:
        (stage,) = self._stages
        assert isinstance(stage, FSDPModule)
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        parts = batch.split(self._micro_batch)
        for index, part in enumerate(parts):
            # Gradients stay whole until the last micro-batch, and travel once.
            stage.set_requires_gradient_sync(index == len(parts) - 1)
            loss = stage(*part).sum() / predictions
            loss.backward()
            total += loss.detach()
        return total

    @torch.no_grad()
    def loss_sum(self, batch: Batch) -> float:
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for part in self._shares(batch)[self.data_rank :: self.data_ranks]:
            total += self._loss_of(part)
        return self._sum_of_losses(total).item()

    @torch.no_grad()
    def token_scores(self, batch: Batch) -> TokenScores:
        shares = self._shares(batch)
        # Sums with zeros from all ranks but one, so that nothing is rounded.
        found = torch.zeros(2, len(shares), *shares[0].targets.shape, device=self.device)
        heard: list[TokenScores] = []
        for stage in self._stages:
            stage.listener = heard.append
        try:
            for index in range(self.data_rank, len(shares), self.data_ranks):
                self._loss_of(shares[index])
                # The last stage alone, whose tensor-parallel ranks have the same.
                if heard and self._mesh.place.tp == 0:
                    for kind, parts in zip(found, zip(*heard, strict=True), strict=True):
                        kind[index] = torch.cat(parts)
                heard.clear()
        finally:
            for stage in self._stages:
                stage.listener = None
        dist.all_reduce(found)
        nats, is_greedy = found.flatten(1, 2)[:, : batch.rows]
        return TokenScores(nats, is_greedy > 0)

    def _shares(self, batch: Batch) -> list[Batch]:
        """Whole batches, whose shape a pipeline knows, and of these a share for each data-parallel
        rank in turn."""
        missing = -batch.rows % (self._share * self.data_ranks)
        return batch.to(self.device).filled_up(missing).split(self._share)

    def _loss_of(self, share: Batch) -> Tensor:
        """Σ loss of the rows on this rank, zero where it has not the last stage."""
        if self._pipeline is not None:
            return self._pipeline.loss_sum(share)
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for few in share.split(self._micro_batch):
            total += self._stages[0](*few).sum()
        return total

    def _sum_of_losses(self, total: Tensor) -> Tensor:
        """Over all ranks; the tensor-parallel ones of the last stage have the same loss."""
        if self._mesh.place.tp > 0:
            total = torch.zeros_like(total)
        dist.all_reduce(total)
        return total

    def gradient_norm(self, weights: Sequence[float]) -> Tensor:
        square = square_norm(self.shards, weights)
        dist.all_reduce(square)
        return square.sqrt()

    def spread(self, values: Tensor, axis: Axis) -> Tensor:
        return spread_mask(values, axis, self._mesh.tp) if self._mesh.layout.tp > 1 else values


def _shards(held: Mapping[str, Region], mesh: Mesh, stages: Sequence[Stage]) -> list[Shard]:
    place = mesh.place
    shards = []
    for stage in stages:
        for name, parameter in stage.network.named_parameters():
            assert isinstance(parameter, DTensor), "fully_shard makes every parameter one"
            is_split = sharded_dim(parameter_of(name)) is not None
            is_counted = place.dp_replicate == 0 and (is_split or place.tp == 0)
            own = own_name(stage.network.config, name)
            local = nn.Parameter(parameter.to_local().detach())
            # As a tied head it is the first stage's, which counts it.
            shards.append(Shard(own, parameter, local, held[own], is_counted and own == name))
    return shards
