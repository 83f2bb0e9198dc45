"""RUN.yaml: everything that determines a run."""

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from teleflm.config.base import PathText, Strict, apply_overrides, build, read_yaml
from teleflm.config.growth import GrowthConfig, with_grown_eps
from teleflm.config.model import ModelConfig
from teleflm.config.resolve import resolve_model
from teleflm.errors import ConfigError


class ReadEpochs(Strict):
    """A domain's source, and how often it is read once through beside the others."""

    path: PathText
    epochs: float = Field(ge=0)


def _form(path: Any) -> str:
    """The form of `data.path`, which says how the rest of it is understood."""
    if not isinstance(path, dict):
        return "(store)"
    by_epochs = any(isinstance(source, dict | ReadEpochs) for source in path.values())
    return "(epochs)" if by_epochs else "(weights)"


def _all_epochs(path: Any) -> Any:
    # Nobody can tell how many epochs a weight stands for, or the other way round.
    weighted = [name for name, source in path.items() if isinstance(source, list | tuple)]
    if weighted:
        raise ValueError(
            f"{weighted[0]!r} has a weight where others have epochs; write all domains as [path, "
            "weight], or all as {path: …, epochs: …}"
        )
    return path


_ByEpochs = Annotated[dict[str, ReadEpochs], BeforeValidator(_all_epochs)]


class DataConfig(Strict):
    """Where the tokens come from.

    `path` is a token store, {domain: [path, weight]} or {domain: {path, epochs}} with a store or a
    Megatron prefix each; `tokenizer` is a tokenizer folder, needed only where no store brings one.
    With a `document_mask` documents that share a sequence do not see each other, and positions
    begin anew with each.
    """

    path: Annotated[
        Annotated[PathText, Tag("(store)")]
        | Annotated[dict[str, tuple[PathText, float]], Tag("(weights)")]
        | Annotated[_ByEpochs, Tag("(epochs)")],
        Discriminator(_form),
    ]
    sequence_length: int = Field(default=4096, ge=1)
    document_mask: bool = False
    tokenizer: PathText | None = None

    @property
    def sources(self) -> list[str]:
        """The stores and prefixes that are read."""
        if isinstance(self.path, str):
            return [self.path]
        return [place for place, _ in self._amounts]

    @property
    def trained_on(self) -> list[str]:
        """Those of them that are not evaluated alone."""
        if isinstance(self.path, str):
            return [self.path]
        return [place for place, amount in self._amounts if amount]

    @property
    def _amounts(self) -> list[tuple[str, float]]:
        """The sources of several, with a weight or epochs each."""
        assert not isinstance(self.path, str)
        return [s if isinstance(s, tuple) else (s.path, s.epochs) for s in self.path.values()]


Precision = Literal["bf16", "fp32", "fp64"]


class TrainingConfig(Strict):
    """Steps of this run; batches are counted in sequences.

    `micro_batch` defaults to all that a data-parallel rank reads, or in a pipeline to the most that
    its schedule takes. `dtype` is what products are computed in; `auto` is what the device does
    fast, settled at a run's start. `compile` passes each block through torch.compile; `auto` does
    so where that is known to pay.
    """

    steps: int = Field(ge=1)
    global_batch: int = Field(ge=1)
    micro_batch: int | None = Field(default=None, ge=1)
    dtype: Literal["auto", Precision] = "auto"
    compile: Literal["auto"] | bool = "auto"

    @property
    def precision(self) -> Precision:
        """What products are computed in; settled by whoever starts to compute, or plans to."""
        assert self.dtype != "auto", "training.dtype is to be settled first"
        return self.dtype

    @model_validator(mode="after")
    def _micro_batches_divide(self) -> "TrainingConfig":
        if self.micro_batch is not None and self.global_batch % self.micro_batch:
            raise ValueError(
                f"global_batch {self.global_batch} does not divide by micro_batch "
                f"{self.micro_batch}; change one of them"
            )
        return self


PipelineSchedule = Literal["1f1b", "interleaved", "zero_bubble"]
Recomputation = Literal["none", "selective", "full"]


class ParallelConfig(Strict):
    """How a run is laid out on its ranks; the run is the same on any layout, to rounding.

    `dp` is what the other axes leave of the ranks; it is sharded, but for `dp_replicate` copies.
    `stages_per_rank` defaults to 1 with the schedule `1f1b`, else to 2. `activation_checkpointing`
    keeps everything, the results of matrix products and attention (`selective`), or a block's
    input (`full`). `gather_dtype` and `reduce_dtype` are what weights and gradients travel in
    between data-parallel ranks; the masters' own unless given.
    """

    tp: int = Field(default=1, ge=1)
    pp: int = Field(default=1, ge=1)
    dp: int | None = Field(default=None, ge=1)
    dp_replicate: int | None = Field(default=None, ge=1)
    dp_shard: int | None = Field(default=None, ge=1)
    schedule: PipelineSchedule = "1f1b"
    stages_per_rank: int | None = Field(default=None, ge=1)
    activation_checkpointing: Recomputation = "none"
    gather_dtype: Literal["bf16", "fp32"] | None = None
    reduce_dtype: Literal["bf16", "fp32"] | None = None


class OptimizerConfig(Strict):
    """AdamW under µP.

    `learning_rate` is for vector-like parameters at any width, `matrix_learning_rate` for
    matrix-like ones at the base width: they get `matrix_learning_rate` / m, and the decay · m.
    """

    learning_rate: float = Field(default=1.5e-4, gt=0)
    matrix_learning_rate: float = Field(default=4.8e-3, gt=0)
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    clip: float = Field(default=1.0, gt=0)

    @model_validator(mode="after")
    def _betas_below_one(self) -> "OptimizerConfig":
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas {list(self.betas)} must each lie in [0, 1)")
        return self


class ScheduleConfig(Strict):
    """Learning rate over the run's own steps.

    Linear warm-up, then a cosine or a line down to `min_ratio` of the peak at `total_steps` (the
    run's own number of steps unless given), or `wsd`: stable, then linear decay over the last
    `decay_fraction` of them.
    """

    kind: Literal["cosine", "wsd", "linear"] = "cosine"
    warmup_steps: int = Field(default=2000, ge=0)
    min_ratio: float = Field(default=0.1, ge=0, le=1)
    total_steps: int | None = Field(default=None, ge=1)
    decay_fraction: float = Field(default=0.2, ge=0, le=1)


class CheckpointConfig(Strict):
    """Save every `every` steps (and at the end), keep the newest `keep`.

    Those whose step in this run is a multiple of `keep_every` stay for ever. An `asynchronous` save
    copies the state and is written while the next steps run.
    """

    every: int = Field(default=1000, ge=1)
    keep: int = Field(default=2, ge=1)
    keep_every: int | None = Field(default=None, ge=1)
    asynchronous: bool = False


class EvaluationConfig(Strict):
    """Bits per byte on the held-out text, every `every` steps, at the first and at the last.

    `tokens` is the most that is read of each domain; `prompts` are continued as samples. Of a chat
    store's held-out conversations so many `answers` a domain are written and compared.
    """

    every: int = Field(default=1000, ge=1)
    tokens: int = Field(default=65_536, ge=1)
    prompts: tuple[str, ...] = ()
    sample_tokens: int = Field(default=48, ge=1)
    answers: int = Field(default=64, ge=0)


class FaultsConfig(Strict):
    """What a run bears: so many skipped steps in a row, or roll backs to one checkpoint, and a rank
    that does not answer the others for so long."""

    max_in_a_row: int = Field(default=5, ge=0)
    # Ranks at work by themselves say so every second; a year is for ever.
    timeout_minutes: float = Field(default=10.0, ge=0.1, le=525_600)

    @property
    def timeout(self) -> timedelta:
        """That time."""
        return timedelta(minutes=self.timeout_minutes)


class SpikesConfig(Strict):
    """Loss spikes, and what to do about one.

    A spike is a loss above the median of the last `window` steps by `threshold` standard
    deviations, and by a tenth. The answer is a record of it, or else its update is not taken: the
    run goes on with the next batch, from where it is or from its last scheduled checkpoint.
    """

    window: int = Field(default=128, ge=4)
    threshold: float = Field(default=8.0, gt=0)
    answer: Literal["log", "skip", "roll_back"] = "log"


class RunConfig(Strict):
    """One stage of training. `start_from` is the checkpoint that it starts from, if any.

    `model` is the model that the run starts with: the checkpoint's where there is one.
    """

    run_dir: PathText
    model: ModelConfig
    seed: int = Field(default=0, ge=0, lt=2**63)
    start_from: PathText | None = None
    data: DataConfig
    training: TrainingConfig
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    parallel: ParallelConfig = ParallelConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    faults: FaultsConfig = FaultsConfig()
    spikes: SpikesConfig = SpikesConfig()
    growth: GrowthConfig | None = None

    @property
    def final_model(self) -> ModelConfig:
        """The model that the run trains: the grown one where it grows."""
        return self.growth.to if self.growth else self.model

    @property
    def tokens_per_step(self) -> int:
        """Tokens that are predicted in one step."""
        return self.training.global_batch * self.data.sequence_length

    @model_validator(mode="after")
    def _context_fits(self) -> "RunConfig":
        longest = self.final_model.max_position_embeddings
        if self.data.sequence_length > longest:
            raise ValueError(
                f"data.sequence_length {self.data.sequence_length} is more than "
                f"max_position_embeddings {longest}; shorten the one or raise the other"
            )
        return self


def load_run(
    path: Path, overrides: Sequence[str] = (), parent: ModelConfig | None = None
) -> RunConfig:
    """The run that a RUN.yaml describes, with command-line overrides.

    Args:
        path: the YAML file.
        overrides: `key.sub=value` items.
        parent: the model of the checkpoint that the run starts from, if any.

    Raises:
        ConfigError: naming the file and the field.
    """
    return resolve_run(apply_overrides(read_yaml(path), overrides), str(path), parent)


def resolve_run(data: dict[str, Any], source: str, parent: ModelConfig | None = None) -> RunConfig:
    """The run that a plain mapping describes; MODEL entries are resolved (see `resolve_model`).

    Raises:
        ConfigError: naming the source and the field; also where `model` is given and is not that of
            the checkpoint.
    """
    plain = dict(data)
    if parent is not None:
        if plain.get("model") is not None:
            _check_same_model(plain["model"], parent, source)
        plain["model"] = parent.model_dump()
    elif plain.get("model") is None:
        raise ConfigError(f"{source}: key 'model' is missing; add it, or start_from a checkpoint")
    else:
        plain["model"] = _resolved(plain["model"], None, f"{source}: model")
    growth = plain.get("growth")
    if isinstance(growth, dict) and "to" in growth:
        model = build(ModelConfig, plain["model"], f"{source}: model")
        target = _resolved(growth["to"], model, f"{source}: growth.to")
        plain["growth"] = {**growth, "to": target}
    config = build(RunConfig, plain, source)
    if config.growth is None:
        return config
    to = with_grown_eps(config.model, config.growth.to, config.growth.width)
    return config.model_copy(update={"growth": config.growth.model_copy(update={"to": to})})


def _resolved(spec: Any, parent: ModelConfig | None, place: str) -> dict[str, Any]:
    try:
        model = resolve_model(spec, parent)
    except ConfigError as error:
        raise ConfigError(f"{place}: {str(error).removeprefix('model: ')}") from None
    # Only what was given, so that `model_fields_set` still tells an explicit vocabulary.
    return model.model_dump(exclude_unset=True)


def _check_same_model(spec: Any, parent: ModelConfig, source: str) -> None:
    given = _resolved(spec, parent, f"{source}: model")
    for field, value in given.items():
        old = getattr(parent, field)
        if value != old:
            raise ConfigError(
                f"{source}: model.{field} is {value}, but the checkpoint of start_from has {old}; "
                "leave model out, or grow to another one with growth.to"
            )


def settled_dtype(config: RunConfig, auto: Precision) -> RunConfig:
    """`config` with a precision to compute in; `training.dtype: auto` becomes this one."""
    if config.training.dtype != "auto":
        return config
    training = config.training.model_copy(update={"dtype": auto})
    return config.model_copy(update={"training": training})


def with_vocabulary(config: RunConfig, vocab_size: int | None) -> RunConfig:
    """`config` with the token store's vocabulary where the model leaves it open.

    Raises:
        ConfigError: the model's own vocabulary is smaller than the store's.
    """
    model = config.model
    if vocab_size is None:
        return config
    if "vocab_size" in model.model_fields_set:
        if model.vocab_size < vocab_size:
            way_out = "leave it out to take the store's"
            if config.start_from is not None:
                way_out = (
                    f"the embedding of {config.start_from} has no rows for the others: prepare the "
                    "data with the checkpoint's own tokenizer; tokens that a chat template needs "
                    "and the tokenizer lacks take rows that a model has beyond its vocabulary"
                )
            raise ConfigError(
                f"model.vocab_size {model.vocab_size} is less than the token store's {vocab_size}; "
                f"{way_out}"
            )
        return config
    update: dict[str, Any] = {"model": model.model_copy(update={"vocab_size": vocab_size})}
    if config.growth:
        grown = config.growth.to.model_copy(update={"vocab_size": vocab_size})
        update["growth"] = config.growth.model_copy(update={"to": grown})
    return config.model_copy(update=update)
