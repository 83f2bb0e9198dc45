"""Growing a checkpoint on disk, piece by piece."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from teleflm.checkpoint.export import export, export_bytes
from teleflm.checkpoint.folder import AT_ONCE
from teleflm.checkpoint.formats import FORMATS
from teleflm.checkpoint.open import Opened, open_state
from teleflm.checkpoint.save import check_place
from teleflm.checkpoint.stream import state_bytes, write_state
from teleflm.config.formats import ExportKind
from teleflm.config.model import ModelConfig
from teleflm.config.run import DataConfig
from teleflm.data.loader import Loader
from teleflm.data.mixture import Mixture, open_domains
from teleflm.growth.event import Event
from teleflm.growth.fold import folded
from teleflm.growth.grow import Growth, grow_lazily
from teleflm.growth.place import layer_distances
from teleflm.growth.state import KINDS, Kind, LazyState
from teleflm.model.axes import parameter_of
from teleflm.model.region import row_stretches
from teleflm.model.streamed import streamed_network
from teleflm.parallel.ranks import Ranks

_ROWS, _LONGEST = 8, 512
# Of the piece by which the speed is judged.
_ENTRIES = 1 << 20


@dataclass(frozen=True)
class Plan:
    """A growth that is ready to be done.

    Attributes:
        grown: the state that it makes, yet to be read.
        events: what it adds to the lineage, an event for each operator.
        tokenizer: the folder of the tokenizer that travels along.
        kind: the format of the export that it becomes, None of a checkpoint.
        seconds: about how long making it takes here, on one process and but for the disk.
        measured_on: what the layers were measured on, None where they were not.
    """

    grown: LazyState
    events: tuple[Event, ...]
    tokenizer: Path | None
    kind: ExportKind | None
    seconds: float
    measured_on: str | None

    def bytes(self, rank: int = 0, ranks: int = 1) -> int:
        """What a rank writes; with one, what the result takes on disk."""
        if self.kind is None:
            return state_bytes(self.grown, rank, ranks)
        return export_bytes(self.grown, self.kind, "fp32", rank, ranks)


def plan_growth(
    source: Path,
    growth: Growth,
    data: DataConfig | None = None,
    kind: ExportKind | None = None,
) -> Plan:
    """What growing the checkpoint `source` (a run folder's newest, or a Hugging Face folder) means.

    Args:
        source: from where.
        growth: how; distances and the parent's digest are filled in.
        data: text to measure layers on; else that of the run, and random ids where that is not at
            hand.
        kind: the format of the export that it is to become; None for a checkpoint.

    Raises:
        CheckpointError: `source` is damaged.
        ConfigError: the format cannot hold the target.
        GrowthError: the operators cannot reach the target.
    """
    if kind is not None:
        FORMATS[kind].check(growth.to)
    text = open_domains(data.path, data.tokenizer) if data is not None else None
    found = open_state(source)
    measured_on = None
    grows_deeper = growth.to.num_hidden_layers > found.state.model.num_hidden_layers
    if growth.place == "distance" and grows_deeper:
        own = found.config.data if found.config is not None else None
        tokens, measured_on = _tokens(own, found.state.model, text)
        # One rank measures for all: its figures to the last digit decide what follows.
        measured = Ranks().from_first(lambda: measured_distances(found.state, tokens))
        growth = replace(growth, distances=measured)
    grown = grow_lazily(found.state, replace(growth, parent=found.digest))
    events = grown.lineage[len(found.state.lineage) :]
    plan = Plan(grown, events, found.tokenizer, kind, 0.0, measured_on)
    rate = _rate(grown, KINDS if kind is None else ("weights",))
    return replace(plan, seconds=plan.bytes() / rate)


def _rate(state: LazyState, kinds: Sequence[Kind]) -> float:
    """Bytes a second at which pieces of a state are made, as `write_folder` makes them."""
    name = "model.layers.0.mlp.up_proj.weight"
    region = row_stretches(parameter_of(name).shape(state.model), _ENTRIES)[0]
    started = time.monotonic()
    made = sum(state.read(kind, name, region).nbytes for kind in kinds)
    return made * AT_ONCE / max(time.monotonic() - started, 1e-6)


def grow_checkpoint(
    source: Path,
    out: Path,
    growth: Growth,
    *,
    data: DataConfig | None = None,
    force: bool = False,
) -> tuple[Event, ...]:
    """Grow `source` and save the result as `out`; see `plan_growth` and `write_state`.

    Returns:
        The growth, as it stands in the lineage.

    Raises:
        CheckpointError: `source` is damaged, or `out` exists.
        GrowthError: the operators cannot reach the target.
        MachineError: too little room on the disk.
    """
    check_place(out, force)
    plan = plan_growth(source, growth, data)
    carry_out(plan, out, force=force)
    return plan.events


def carry_out(
    plan: Plan,
    out: Path,
    *,
    force: bool = False,
    tell: Callable[[int], object] = lambda _: None,
) -> None:
    """Write what a growth makes; where `torch.distributed` is initialised, all ranks do.

    An export holds the function of a checkpoint, and no more.

    Args:
        plan: the growth.
        out: where, on a disk that all ranks see.
        force: replace what is there.
        tell: is told the bytes that this rank made since the last call, of `plan.bytes` for it.

    Raises:
        CheckpointError, MachineError, RunLockedError: see `write_state` and `export`.
    """
    grown = plan.grown
    if plan.kind is None:
        write_state(out, grown, plan.tokenizer, force=force, tell=tell)
        return
    source = Opened(out.resolve().name, grown, grown.lineage[-1].parent, plan.tokenizer)
    export(source, out, plan.kind, force=force, tell=tell)


def measured_distances(state: LazyState, tokens: Tensor) -> list[float]:
    """How far each layer moves the stream on tokens (B, S), see `layer_distances`."""
    ordinary = folded(state)
    alone = Ranks(alone=True)
    network = streamed_network(ordinary.model, ordinary.weight, torch.float32, alone)
    return layer_distances(network, tokens)


def sample_tokens(mixture: Mixture, model: ModelConfig, longest: int) -> Tensor:
    """Some rows (B, S) of a run's text, S at most `longest`."""
    loader = Loader(
        mixture.domains,
        seed=0,
        sequence_length=min(_LONGEST, model.max_position_embeddings, longest),
        global_batch=_ROWS,
        vocab_size=model.vocab_size,
    )
    return torch.from_numpy(loader.batch(0).tokens)


def _tokens(own: DataConfig | None, model: ModelConfig, text: Mixture | None) -> tuple[Tensor, str]:
    """Text to measure layers on, and what it is: the given, else the run's own, else random ids."""
    longest = own.sequence_length if own is not None else _LONGEST
    if text is not None:
        return sample_tokens(text, model, longest), "the given text"
    if own is not None and all(Path(path).is_dir() for path in own.sources):
        tokens = sample_tokens(open_domains(own.path, own.tokenizer), model, longest)
        return tokens, "the run's own text"
    length = min(_LONGEST, model.max_position_embeddings)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(model.vocab_size, (_ROWS, length), generator=generator)
    return tokens, "random ids, as the run's text is not at hand (--data names a store)"
