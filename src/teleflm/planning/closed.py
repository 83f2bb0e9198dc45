"""What a rank's step takes, as plain arithmetic: for a search that asks of thousands of layouts.

The dry run is the truth that this is tested against; see docs/planning.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from teleflm.config.run import RunConfig
from teleflm.parallel.layout import Layout
from teleflm.parallel.memory import memory
from teleflm.planning.counting import Traffic
from teleflm.planning.moments import peak_beyond
from teleflm.planning.share import Share, share_of


@dataclass(frozen=True)
class Closed:
    """What one rank does in a step.

    Attributes:
        parameters: that it holds, with the vocabulary's padding.
        kept: bytes from step to step, by kind: parameters, gradients, optimizer.
        activations: bytes at the peak beyond those, gathered weights and buffers too.
        flops: of matrix products and attention, what is computed again too.
        head_flops: of them the head's.
        collectives: by mesh axis and kind, without the few bytes of losses, norms and gains.
        micro_batches: in a step.
    """

    parameters: int
    kept: Mapping[str, int]
    activations: int
    flops: int
    head_flops: int
    collectives: Mapping[str, Traffic]
    micro_batches: int

    @property
    def total(self) -> int:
        """The most bytes at any moment."""
        return sum(self.kept.values()) + self.activations


def closed_form(
    config: RunConfig, layout: Layout, pipeline_rank: int, device: str = "cuda"
) -> Closed:
    """The first rank of a pipeline rank, which holds the most.

    Args:
        config: the run.
        layout: of all ranks; one that `layout_for` would give.
        pipeline_rank: which one.
        device: the kind that it would compute on, `cuda` or `cpu`, which differ by the logits that
            exist at a time, by what attention is computed in and by what a norm keeps.
    """
    share = share_of(config, layout, pipeline_rank, device)
    rank = pipeline_rank * layout.ranks // layout.pp
    keeps = memory(config.final_model, layout, rank, share.master)
    kept = {
        "parameters": keeps.parameters,
        "gradients": keeps.gradients,
        "optimizer": keeps.optimizer,
    }
    # Gradients come and go within a step, and so are a part of its moments.
    beyond = peak_beyond(share, keeps.gradients) - keeps.gradients
    return Closed(
        parameters=keeps.parameters // share.master,
        kept=kept,
        activations=beyond,
        flops=_flops(share) + _head_flops(share),
        head_flops=_head_flops(share),
        collectives=_collectives(share),
        micro_batches=share.micro_batches,
    )


def _flops(share: Share) -> int:
    """Of the layers: of a matrix 2 a token and entry forward, 4 backward; attention whole."""
    layers = sum(share.layers)
    scores = 4 * share.tokens * share.sequence * share.heads_width
    forward = 2 * share.tokens * share.block_matrices + scores
    flops = 3 * layers * forward
    if share.recomputation == "full":
        # The last product's result is needed by nothing that is computed again.
        flops += layers * (forward - 2 * share.tokens * share.hidden * share.ffn)
    return flops * share.micro_batches


def _head_flops(share: Share) -> int:
    return 6 * share.tokens * share.head * share.has_head * share.micro_batches


def _collectives(share: Share) -> dict[str, Traffic]:
    found: dict[str, Traffic] = {}

    def add(name: str, count: int, size: int) -> None:
        if count:
            before = found.get(name, Traffic(0, 0))
            found[name] = Traffic(before.count + count, before.bytes + count * size)

    m, layers = share.micro_batches, sum(share.layers)
    if share.layout.tp > 1:
        narrow = share.tokens * share.hidden * share.compute
        wide = share.tokens * share.hidden * share.stream
        again = share.recomputation != "none"
        # In front of attention and MLP, and backward behind them; what is computed again ends
        # before the last sum.
        add("tp.all_gather", m * layers * (6 if again else 4), narrow)
        add("tp.reduce_scatter", m * layers * (5 if again else 4), narrow)
        for kind in ("tp.all_gather", "tp.reduce_scatter"):
            add(kind, m * share.has_embedding, wide)
            add(kind, m * share.has_head, narrow)
        chunks = -(-share.tokens // share.loss_rows)
        pairs = 2 * share.layout.tp * share.tokens * share.wide // chunks
        add("tp.all_gather", m * chunks * share.has_head, pairs)
    if share.layout.pp > 1:
        stream = share.own_tokens * share.hidden * share.stream
        ends = 2 * len(share.layers)
        add("pp.send", m * (ends - share.has_embedding - share.has_head), stream)
        add("pp.recv", m * (ends - share.has_embedding - share.has_head), stream)
        if share.tied and (share.has_embedding or share.has_head):
            for kind in ("pp.send", "pp.recv"):
                add(kind, 1, -(-share.embedding // share.layout.dp_shard) * share.master)
    groups = share.groups
    if share.layout.dp_shard > 1:
        # A pipeline gathers weights once a step, else each micro-batch does, forward and backward.
        times = 1 if share.layout.pp > 1 else 2 * m
        for size in groups:
            add("dp_shard.all_gather", times, size * share.stream)
            add("dp_shard.reduce_scatter", 1, size * share.reduced)
    if share.layout.dp_replicate > 1:
        for size in groups:
            shard = -(-size // share.layout.dp_shard)
            add("dp_replicate.all_reduce", 1, shard * share.reduced)
    return found
