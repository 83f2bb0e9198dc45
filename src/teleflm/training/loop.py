"""The one training loop."""

import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from teleflm.checkpoint.save import TOKENIZER
from teleflm.config.base import write_yaml
from teleflm.config.run import RunConfig, with_vocabulary
from teleflm.data.mixture import Mixture, open_domains
from teleflm.errors import MachineError, StoppedError
from teleflm.parallel.engine import OneProcess
from teleflm.training.allocator import keep_freed_memory
from teleflm.training.hooks.base import Hook
from teleflm.training.hooks.checkpoints import SaveCheckpoints
from teleflm.training.hooks.evaluation import Evaluate
from teleflm.training.hooks.metrics import Metrics, TensorBoard
from teleflm.training.hooks.progress import ShowProgress
from teleflm.training.hooks.report import WriteReport
from teleflm.training.learner import Learner
from teleflm.training.lock import locked
from teleflm.training.peak import bf16_peak
from teleflm.training.run import Run, StepRecord
from teleflm.training.schedule import rate_factor
from teleflm.training.signals import StopRequest, stop_request
from teleflm.training.start import (
    check_same_run,
    check_same_tokenizer,
    newest_whole_checkpoint,
    start_state,
)
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
    with locked(Path(config.run_dir)), stop_request() as stop:
        run = _prepare(config, mixture)
        _loop(run, list(hooks) if hooks is not None else default_hooks(), stop)
    return run.directory


def _prepare(config: RunConfig, mixture: Mixture) -> Run:
    directory = Path(config.run_dir)
    found = newest_whole_checkpoint(directory)
    if found is not None:
        manifest, state = found
        check_same_run(config, manifest.config, directory)
        check_same_tokenizer(directory / TOKENIZER, mixture)
    else:
        state = start_state(config, mixture)
    tokenizer = None
    if mixture.tokenizer is not None:
        tokenizer = directory / TOKENIZER
        mixture.tokenizer.save(tokenizer)
    write_yaml(directory / "config.yaml", config)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.float64 if config.training.dtype == "fp64" else torch.float32
    engine = OneProcess(
        state.model,
        dtype,
        device,
        dtype=config.training.dtype,
        micro_batch=config.training.micro_batch,
        compiled=config.training.compile,
    )
    learner = Learner(state, config.optimizer, engine=engine)
    run = Run(config, state, learner, mixture, tokenizer)
    if found is not None:
        over = "trained already, to" if run.step >= run.last_step else "going on from"
        print(f"{directory}: {over} step {run.step}", file=sys.stderr)
    return run


def _loop(run: Run, hooks: list[Hook], stop: StopRequest) -> None:
    device = run.learner.engine.device
    peak = bf16_peak(device)
    try:
        for hook in hooks:
            hook.on_start(run)
        while run.step < run.last_step and stop.signal_number is None:
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


def _step(run: Run, device: torch.device, peak: float | None) -> StepRecord:
    """Take one step; `run.step` moves on."""
    training, config = run.config.training, run.config
    factor = rate_factor(config.schedule, run.own_steps, training.steps)
    started = time.perf_counter()
    batch = torch.from_numpy(run.loader.batch(run.step)).to(device)
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
