"""A model laid out to be asked how likely tokens are: in this process, or on many ranks."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from teleflm.checkpoint.open import Opened
from teleflm.config.model import ModelConfig
from teleflm.config.run import ParallelConfig, Precision, TrainingConfig
from teleflm.errors import ConfigError
from teleflm.growth.state import LazyState
from teleflm.model.batch import IGNORED, Batch
from teleflm.model.network import TeleFLM
from teleflm.parallel.choose import Job, layout_of
from teleflm.parallel.engine import Engine, OneProcess
from teleflm.parallel.many import ManyRanks
from teleflm.parallel.mesh import build_mesh
from teleflm.parallel.ranks import Ranks
from teleflm.parallel.recipe import Recipe

IntArray = npt.NDArray[np.int64]
# So many at a time keep a processor busy, and need no more memory than a small training step.
_TOKENS_AT_A_TIME = {"cpu": 4096}
_TOKENS_AT_A_TIME_ELSEWHERE = 65_536


@dataclass(frozen=True)
class Scorer:
    """Asks an engine.

    Attributes:
        engine: with the model's weights.
        model: its shape.
        length: the most tokens that are predicted at once of a row.
        precision: what products are computed in.
        rank, ranks: this one's share of the work, where each rank has the whole model; 0 and 1
            where all of them work on the same.
        padded, at_once: predictions that rows are filled up to, and how many make a batch, where
            the engine wants all alike.
    """

    engine: Engine
    model: ModelConfig
    length: int
    precision: Precision
    rank: int = 0
    ranks: int = 1
    padded: int | None = None
    at_once: int | None = None

    def rows_of(self, predictions: int) -> int:
        """How many rows of at most so many predictions are asked for at once."""
        if self.at_once is not None:
            return self.at_once
        return max(1, _tokens_at_a_time(self.engine.device) // max(predictions, 1))

    def scores(
        self, rows: Sequence[IntArray], starts: Sequence[IntArray] = ()
    ) -> list[tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]]:
        """Of each row of ids (n + 1,): −log p in nats of tokens 1 … n, and whether each is the
        likeliest, (n,); n at most `length`. Where rows hold several texts, `starts` are the places
        at which those of tokens begin, (n + 1,) each."""
        longest = self.padded or max(map(len, rows)) - 1
        batch = np.full((len(rows), longest + 1), IGNORED, np.int64)
        for line, row in zip(batch, rows, strict=True):
            line[: len(row)] = row
        places = np.zeros((len(rows), longest), np.int64)
        for line, each in zip(places, starts, strict=False):
            line[: len(each) - 1] = each[:-1]
        read = Batch.next_tokens(
            torch.from_numpy(batch), torch.from_numpy(places) if starts else None
        )
        nats, is_greedy = (kind.cpu() for kind in self.engine.token_scores(read))
        return [
            (of.numpy()[: len(row) - 1].astype(np.float64), greedy.numpy()[: len(row) - 1])
            for row, of, greedy in zip(rows, nats, is_greedy, strict=True)
        ]

    @property
    def network(self) -> TeleFLM:
        """The whole network; of one process only."""
        (network,) = self.engine.networks
        return network

    @property
    def is_whole(self) -> bool:
        """Whether this process has the whole network."""
        return self.padded is None


def open_scorer(
    source: Opened,
    length: int | None,
    precision: Precision,
    device: torch.device,
    parallel: ParallelConfig | None = None,
) -> Scorer:
    """The model of `source`, by every rank: each has it whole, or together where `parallel` says
    how it is laid out.

    Args:
        length: tokens that are predicted at once; all that the model's context has unless given.

    Raises:
        ConfigError: a length beyond the context, or a layout that cannot be.
        CheckpointError: a damaged tensor.
    """
    state, ranks = source.ordinary, Ranks()
    model = state.model
    length = length or model.max_position_embeddings
    check_length(length, source)
    if parallel is not None:
        padded = length + -length % parallel.tp
        at_once = ranks.count * max(1, _tokens_at_a_time(device) // (padded * ranks.count))
        training = TrainingConfig(steps=1, global_batch=at_once, dtype=precision, compile=False)
        layout = layout_of(Job({"model": model}, padded, training, parallel), ranks.count)
        if ranks.count > 1:  # of a single process there is no mesh
            mesh = build_mesh(layout, ranks.rank, device)
            many = ManyRanks(model, mesh, Recipe(parallel, training, torch.float32))
            ranks.agreed(lambda: _fill(many, state))
            return Scorer(many, model, length, precision, padded=padded, at_once=at_once)
    one = OneProcess(model, torch.float32, device, precision=precision)
    ranks.agreed(lambda: _fill(one, state))
    return Scorer(one, model, length, precision, ranks.rank, ranks.count)


def check_length(length: int, source: Opened) -> None:
    """Raises ConfigError where a model's context is shorter."""
    context = source.state.model.max_position_embeddings
    if length > context:
        raise ConfigError(
            f"--sequence-length {length:,}: the context of {source.name} is {context:,} tokens; "
            f"give {context:,} or less"
        )


def _tokens_at_a_time(device: torch.device) -> int:
    return _TOKENS_AT_A_TIME.get(device.type, _TOKENS_AT_A_TIME_ELSEWHERE)


@torch.no_grad()
def _fill(engine: Engine, state: LazyState) -> None:
    for shard in engine.shards:
        shard.local.zero_()  # the padding of the vocabulary
        shard.held(shard.local).copy_(state.weight(shard.name, shard.region))
