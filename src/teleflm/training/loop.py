"""The one training loop."""

import gc
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch

from teleflm.config.run import RunConfig, with_vocabulary
from teleflm.data.mixture import open_domains
from teleflm.errors import DivergedError, StoppedError
from teleflm.growth.event import Lineage
from teleflm.model.batch import Batch
from teleflm.model.precision import peak_rate
from teleflm.parallel.world import world
from teleflm.training.allocator import keep_freed_memory
from teleflm.training.faults import Verdict, Watch
from teleflm.training.hooks.base import Hook
from teleflm.training.hooks.checkpoints import SaveCheckpoints
from teleflm.training.hooks.evaluation import Evaluate
from teleflm.training.hooks.jsonl import records_up_to
from teleflm.training.hooks.lagging import Lagging
from teleflm.training.hooks.metrics import METRICS, Metrics, TensorBoard
from teleflm.training.hooks.progress import ShowProgress
from teleflm.training.hooks.report import WriteReport
from teleflm.training.lock import locked
from teleflm.training.precision import settled
from teleflm.training.prepare import prepare
from teleflm.training.roll_back import roll_back
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
        Lagging(),
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
        DivergedError: too many steps in a row went wrong.
        MachineError: a full disk.
        StoppedError: SIGINT or SIGTERM, after the work so far was saved.
    """
    keep_freed_memory()
    mixture = open_domains(config.data.path, config.data.tokenizer, config.data.sequence_length)
    config = with_vocabulary(config, mixture.vocab_size)
    if mixture.trains_on_chats:
        # So that whoever has the run's configuration alone knows it, as `eval` of its text.
        data = config.data.model_copy(update={"document_mask": True})
        config = config.model_copy(update={"data": data})
    with (
        world(config.faults.timeout) as (ranks, device),
        locked(Path(config.run_dir), ranks),
        stop_request() as stop,
    ):
        config = settled(config, ranks, device)
        hooks = default_hooks() if hooks is None else hooks
        mine = [hook for hook in hooks if ranks.first or hook.on_every_rank]
        # A roll back is a resume: everything but its lineage comes from the disk.
        lineage = _loop(prepare(config, mixture, ranks, device), mine, stop)
        while lineage is not None:
            # The old network is in a circle of references, and memory may not hold two.
            gc.collect()
            lineage = _loop(prepare(config, mixture, ranks, device, lineage), mine, stop)
    return Path(config.run_dir)


def _loop(run: Run, hooks: Sequence[Hook], stop: StopRequest) -> Lineage | None:
    """Train to the end, or up to a roll back: then the lineage to start with again."""
    ranks, device = run.ranks, run.learner.engine.device
    peak = ranks.from_first(partial(peak_rate, device, run.config.training.precision))
    watch = Watch(run.config.spikes)
    # One reads them for all: what is judged by them must be judged alike.
    for line in ranks.from_first(lambda: records_up_to(run.directory / METRICS, run.step)):
        watch.add(line)
    try:
        for hook in hooks:
            hook.on_start(run)
        spike = None
        while spike is None and run.step < run.last_step and not _stops(run, stop):
            record, verdict = _step(run, watch, device, peak)
            _tell(run, verdict, watch)
            if verdict.answer == "roll_back":
                spike = verdict.reason
            else:
                _record(run, watch, hooks, record, verdict)
        if spike is None:
            for hook in hooks:
                hook.on_end(run)
    finally:
        for hook in hooks:
            hook.close()
    if spike is not None:
        # Only now: a save that was still under way could have been the one to go back to.
        return ranks.from_first(partial(roll_back, run, spike))
    if stop.signal_number is not None:
        raise StoppedError(
            stop.signal_number,
            f"saved at step {run.step} of {run.last_step}; the same command goes on from there",
        )
    return None


def _stops(run: Run, stop: StopRequest) -> bool:
    """Whether any rank was asked to stop: all of them then do, after the same step."""
    asked = run.ranks.largest(stop.signal_number or 0)
    # One that came while they agreed stays for the next time: all must find the same.
    stop.signal_number = asked or stop.signal_number
    return asked != 0


def _record(
    run: Run, watch: Watch, hooks: Sequence[Hook], record: StepRecord, verdict: Verdict
) -> None:
    if record.skipped:
        run.lineage = (*run.lineage, run.event("skip", run.step, 1, verdict.reason))
    watch.add(asdict(record))
    for hook in hooks:
        hook.on_step(run, record)


def _tell(run: Run, verdict: Verdict, watch: Watch) -> None:
    """Say what went wrong in the newest step.

    Raises:
        DivergedError: it is to be skipped, and too many before it were.
    """
    if verdict.fault is None:
        return
    where = f"{run.directory}, step {run.step}: {verdict.reason}"
    if verdict.answer == "skip" and watch.skipped_in_a_row >= run.config.faults.max_in_a_row:
        raise DivergedError(
            f"{where}, after {watch.skipped_in_a_row} skipped steps in a row; the last checkpoint "
            "stands: lower the learning rate or lengthen the warm-up in a new run_dir, or raise "
            "faults.max_in_a_row"
        )
    words = {"log": "going on", "skip": "its update is skipped", "roll_back": "rolling back"}
    if run.ranks.first:
        print(f"{where}; {words[verdict.answer or 'log']}", file=sys.stderr, flush=True)


def _step(run: Run, watch: Watch, device: torch.device, peak: float) -> tuple[StepRecord, Verdict]:
    """Take one step, or judge that it is not to be taken; `run.step` moves on."""
    training, config = run.config.training, run.config
    factor = rate_factor(config.schedule, run.own_steps, training.steps)
    started = time.perf_counter()
    engine = run.learner.engine
    rows = run.loader.batch(run.step, engine.data_rank, engine.data_ranks)
    batch = Batch.of(rows).to(device)
    ramp = run.learner.ramp(run.step)
    result = train_step(
        run.learner,
        batch,
        step=run.step,
        factor=factor,
        clip=config.optimizer.clip,
        judge=watch.judge,
    )
    seconds = time.perf_counter() - started
    run.step += 1
    rate = config.tokens_per_step / seconds
    record = StepRecord(
        step=run.step,
        tokens=run.tokens,
        flops=run.flops,
        loss=result.loss if math.isfinite(result.loss) else None,
        grad_norm=result.grad_norm if math.isfinite(result.grad_norm) else None,
        lr=config.optimizer.learning_rate * factor,
        ramp=ramp.progress,
        tokens_per_second=rate,
        mfu=run.flops_per_step / seconds / (peak * run.ranks.count),
        fault=result.verdict.fault,
        skipped=not result.verdict.takes_update,
    )
    return record, result.verdict
