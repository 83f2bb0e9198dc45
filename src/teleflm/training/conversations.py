"""What instruction tuning asks for beside training, and what it tells of its conversations."""

import sys
from pathlib import Path
from typing import Any

from teleflm.config.run import RunConfig
from teleflm.data.loader import BLOCK
from teleflm.data.packed import Packed
from teleflm.data.store import CHAT, STORE_FILE, TokenStore
from teleflm.errors import ConfigError
from teleflm.files import read_jsonl
from teleflm.training.run import Run
from teleflm.training.start import resolve_config


def resolve_tuning(data: dict[str, Any], source: str) -> RunConfig:
    """The run that a mapping describes, if it is instruction tuning: from a checkpoint on, with
    conversations among its sources.

    Raises:
        ConfigError, CheckpointError: naming the key or the path.
        DataError: a store cannot be read.
    """
    if data.get("start_from") is None:
        raise ConfigError(
            f"{source}: start_from is missing: sft goes on from a checkpoint; name one, or use "
            "`teleflm train` to train from nothing"
        )
    config = resolve_config(data, source)
    places = config.data.trained_on
    if not any(_is_chat(place) for place in places):
        raise ConfigError(
            f"{source}: data.path: no conversations in {', '.join(places)}, which is trained on; "
            "make them with: teleflm data prepare --chat tele-flm --tokenizer DIR --out STORE PATH…"
        )
    return config


def _is_chat(place: str) -> bool:
    # Of a Megatron prefix there is no store.
    path = Path(place)
    return (path / STORE_FILE).is_file() and TokenStore(path).kind == CHAT


def tell_conversations(run: Run) -> None:
    """Say how conversations fill rows, how often they are read, and what is left out of them."""
    config, steps = run.config, run.config.training.steps
    length, batch = config.data.sequence_length, config.training.global_batch
    for name, windows in run.loader.windows.items():
        if not isinstance(windows, Packed) or not run.sources[name].share:
            continue
        times = steps * batch * run.sources[name].share / BLOCK / windows.count
        _tell(
            f"{name}: {windows.conversations:,} conversations in {windows.count:,} rows of "
            f"{length:,} tokens; {steps:,} steps of {batch:,} rows read them {times:.1f} times"
        )
        if windows.cut or windows.left_out:
            _tell(
                f"{name}: longer than a row: {windows.cut:,} of them are cut behind a reply, and "
                f"{windows.left_out:,} more are left out, whose first reply ends beyond it"
            )
        if run.ranks.many and config.evaluation.answers:
            _tell(f"{name}: held-out conversations are answered on one process only; left out")
    for domain in run.mixture.domains:
        held_out, counted = domain.held_out, domain.held_out_counted
        if held_out is None or counted is None:
            continue
        if not Packed(held_out, counted, length).count:
            _tell(
                f"{domain.name}: none of {len(held_out):,} held-out conversations has a reply that "
                "ends within a row, so nothing of them is evaluated"
            )


def answers_told(run_dir: Path) -> str | None:
    """How many held-out conversations a tuned run answers word for word; None where it was not
    asked."""
    evaluations = read_jsonl(run_dir / "evaluation.jsonl")
    if not evaluations or "exact_match" not in evaluations[-1]:
        return None
    exact, number = evaluations[-1]["exact_match"], evaluations[-1]["answers"]
    return (
        f"answers {exact:.0%} of {number:,} held-out conversations word for word; see report.html"
    )


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
