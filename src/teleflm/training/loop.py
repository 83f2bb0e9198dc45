"""The one training loop."""

import math
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from teleflm.config.run import RunConfig, with_vocabulary
from teleflm.data.mixture import open_domains
from teleflm.errors import MachineError, StoppedError
from teleflm.parallel.world import world
from teleflm.training.allocator import keep_freed_memory
from teleflm.training.hooks.base import Hook
from teleflm.training.hooks.checkpoints import SaveCheckpoints
from teleflm.training.hooks.evaluation import Evaluate
from teleflm.training.hooks.metrics import Metrics, TensorBoard
from teleflm.training.hooks.progress import ShowProgress
from teleflm.training.hooks.report import WriteReport
from teleflm.training.lock import locked
from teleflm.training.peak import bf16_peak
from teleflm.training.prepare import prepare
from teleflm.training.run import Run, StepRecord
from teleflm.training.schedule import rate_factor
from teleflm.training.signals import StopRequest, stop_request
from teleflm.training.step import train_step


def default_hooks(title: str = "train") -> list[Hook]:
    """What every run has. Checkpoints come after metrics, so that one never precedes them."""
    return [
        ShowProgress(title),
        Metrics(),
        TensorBoard(),
        Evaluate(),
        SaveCheckpoints(),
        WriteReport(),
    ]


def train(config: RunConfig, hooks: Sequence[Hook] | None = None) -> Path:
    """Run a stage to its end, from its newest whole checkpoint where there is one.

    Args:
        config: the run.
        hooks: what happens beside the step, `default_hooks()` unless given.

    Returns:
        The run folder.

    Raises:
        ConfigError, DataError, CheckpointError, GrowthError, RunLockedError: the input is at fault.
        MachineError: a full disk, or a loss that is not finite.
        StoppedError: SIGINT or SIGTERM, after the work so far was saved.
    """
    keep_freed_memory()
    mixture = open_domains(config.data.path, config.data.tokenizer)
    config = with_vocabulary(config, mixture.vocab_size)
    with world() as (ranks, device), locked(Path(config.run_dir), ranks), stop_request() as stop:
        run = prepare(config, mixture, ranks, device)
        hooks = default_hooks() if hooks is None else hooks
        _loop(run, [hook for hook in hooks if ranks.first or hook.on_every_rank], stop)
    return run.directory


def _loop(run: Run, hooks: list[Hook], stop: StopRequest) -> None:
    device = run.learner.engine.device
    peak = bf16_peak(device)
    try:
        for hook in hooks:
            hook.on_start(run)
        while run.step < run.last_step and not _stops(run, stop):
            record = _step(run, device, peak)
            for hook in hooks:
                hook.on_step(run, record)
        for hook in hooks:
            hook.on_end(run)
    finally:
        for hook in hooks:
            hook.close()
    if stop.signal_number is not None:
        raise StoppedError(
            stop.signal_number,
            f"saved at step {run.step} of {run.last_step}; the same command goes on from there",
        )


def _stops(run: Run, stop: StopRequest) -> bool:
    """Whether any rank was asked to stop: all of them then do, after the same step."""
    stop.signal_number = run.ranks.largest(stop.signal_number or 0) or None
    return stop.signal_number is not None


def _step(run: Run, device: torch.device, peak: float | None) -> StepRecord:
    """Take one step; `run.step` moves on."""
    training, config = run.config.training, run.config
    factor = rate_factor(config.schedule, run.own_steps, training.steps)
    started = time.perf_counter()
    engine = run.learner.engine
    rows = run.loader.batch(run.step, engine.data_rank, engine.data_ranks)
    batch = torch.from_numpy(rows).to(device)
    ramp = run.learner.ramp(run.step)
    result = train_step(
        run.learner,
        batch,
        step=run.step,
        factor=factor,
        clip=config.optimizer.clip,
    )
    seconds = time.perf_counter() - started
    if not math.isfinite(result.loss) or not math.isfinite(result.grad_norm):
        raise MachineError(
            f"{run.directory}: loss {result.loss} and gradient norm {result.grad_norm} at step "
            f"{run.step}; the last checkpoint stands: lower the learning rate or lengthen the "
            "warm-up, in a new run_dir"
        )
    run.step += 1
    rate = config.tokens_per_step / seconds
    return StepRecord(
        step=run.step,
        tokens=run.tokens,
        flops=run.flops,
        loss=result.loss,
        grad_norm=result.grad_norm,
        lr=config.optimizer.learning_rate * factor,
        ramp=ramp.progress,
        tokens_per_second=rate,
        mfu=run.flops_per_step / seconds / peak if peak else None,
    )
