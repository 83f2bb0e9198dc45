"""Does the best rate stay where it is when the model gets wider? Under µP and without.

    python examples/mup_study/study.py run --store demo/store --out study
    python examples/mup_study/study.py table

`run` trains what results.jsonl does not hold yet and adds a line a run; see README.md beside this.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from examples.mup_study.table import bests, pictured, tables
from teleflm.errors import MachineError
from teleflm.training.hooks.base import Hook
from teleflm.training.hooks.checkpoints import SaveCheckpoints
from teleflm.training.hooks.evaluation import Evaluate
from teleflm.training.hooks.metrics import Metrics
from teleflm.training.loop import train
from teleflm.training.start import resolve_config

RESULTS = Path(__file__).with_name("results.jsonl")
PICTURE = Path(__file__).parents[2] / "docs" / "mup_study.png"
WIDTHS = (32, 64, 128, 256)
# Sizes between them, for the law; at the rates that are best for the narrowest.
MORE_WIDTHS = (48, 96, 192)
LAYERS, HEAD_DIM, CONTEXT, BATCH, STEPS, WARMUP = 4, 16, 64, 8, 300, 30
# There both parametrizations are one model: µP's rates hold at this width.
BASE_WIDTH = 64
# By factors of two, each beside the other's best at the base width.
MATRIX_RATES = tuple(5e-4 * 2**k for k in range(-3, 3))
VECTOR_RATES = tuple(3e-2 * 2**k for k in range(-2, 3))
MATRIX_RATE, VECTOR_RATE = 5e-4, 3e-2
GROWN_WIDTHS, OPERATORS, RAMP = (64, 128, 256), ("mask", "clone"), 30
# The training loss that is compared is the mean of the last steps'; noise of single batches is
# several times the differences that are looked for.
LAST = 30


@dataclass(frozen=True)
class Trial:
    """A run: its parametrization, width, rates (at the base width under µP) and seed.

    `growth` is how it came to its width, from the half of it at half of the steps.
    """

    parametrization: str
    width: int
    matrix_rate: float
    vector_rate: float
    seed: int
    growth: str | None = None


def trials(seeds: int) -> Iterator[Trial]:
    """All matrix rates of the first seed before the next one's; then, of the first seed alone,
    vector rates, and growth from half the width."""
    for seed in range(1, seeds + 1):
        for width in WIDTHS:
            for parametrization in parametrizations(width):
                for rate in MATRIX_RATES:
                    yield Trial(parametrization, width, rate, VECTOR_RATE, seed)
        for width in MORE_WIDTHS:
            yield Trial("mup", width, MATRIX_RATE, VECTOR_RATE, seed)
    for width in WIDTHS:
        for parametrization in parametrizations(width):
            for rate in VECTOR_RATES:
                if rate != VECTOR_RATE:
                    yield Trial(parametrization, width, MATRIX_RATE, rate, 1)
    for operator in OPERATORS:
        for width in GROWN_WIDTHS:
            for rate in MATRIX_RATES:
                yield Trial("mup", width, rate, VECTOR_RATE, 1, operator)


def parametrizations(width: int) -> tuple[str, ...]:
    """Those that differ at a width."""
    return ("mup",) if width == BASE_WIDTH else ("mup", "standard")


def shape(width: int, parametrization: str) -> dict[str, Any]:
    """MODEL of that width: the nano family's ratios."""
    return {
        "hidden_size": width,
        "intermediate_size": 11 * width // 4,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": width // HEAD_DIM,
        "head_dim": HEAD_DIM,
        "mup_base_width": BASE_WIDTH,
        # The family's 0.024 at width 256.
        "matrix_init_std": 0.048,
        "output_mult": 4.0,
        "parametrization": parametrization,
    }


def mapping(trial: Trial, store: Path, out: Path) -> dict[str, Any]:
    """The RUN of a trial, for one that grows from its parent on."""
    values = [value for value in asdict(trial).values() if value is not None]
    name = "-".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)
    return {
        "run_dir": str(out / name),
        "seed": trial.seed,
        "model": shape(trial.width, trial.parametrization),
        "data": {"path": str(store), "sequence_length": CONTEXT},
        "training": {"steps": STEPS, "global_batch": BATCH, "dtype": "fp32"},
        "optimizer": {
            "learning_rate": trial.vector_rate,
            "matrix_learning_rate": trial.matrix_rate,
        },
        "schedule": {"kind": "cosine", "warmup_steps": WARMUP, "min_ratio": 0.1},
        "checkpoint": {"every": STEPS},
        "evaluation": {"every": STEPS, "tokens": 8192},
    }


def grown(trial: Trial, store: Path, out: Path) -> dict[str, Any]:
    """The second half of a RUN that grows: its parent, of half the width, trained at a constant
    rate, and then as much again at the falling one."""
    half = STEPS // 2
    parent = mapping(replace(trial, width=trial.width // 2), store, out / "parents")
    parent["training"]["steps"] = parent["checkpoint"]["every"] = half
    parent["schedule"] = {"kind": "wsd", "warmup_steps": WARMUP, "decay_fraction": 0.0}
    folder = train(resolve_config(parent, "study"), [Metrics(), SaveCheckpoints()])
    child = mapping(trial, store, out)
    child["training"]["steps"] = half
    child["schedule"]["warmup_steps"] = 0
    model = child.pop("model")
    growth = {"to": model, "width": trial.growth, "ramp": RAMP}
    return {**child, "start_from": str(folder), "growth": growth}


def run(trial: Trial, store: Path, out: Path) -> dict[str, Any]:
    """Train it, and what came of it; a loss of None is a run that diverged."""
    began = time.perf_counter()
    hooks: list[Hook] = [Metrics(), Evaluate()]
    if is_for_the_law(trial):
        hooks.append(SaveCheckpoints())
    try:
        data = (grown if trial.growth else mapping)(trial, store, out)
        folder = train(resolve_config(data, "study"), hooks)
    except MachineError as error:
        return {**asdict(trial), "loss": None, "held_out": None, "why": str(error)}
    losses, evaluations = (
        [json.loads(line)["loss"] for line in (folder / name).read_text().splitlines()]
        for name in ("metrics.jsonl", "evaluation.jsonl")
    )
    seconds = round(time.perf_counter() - began, 1)
    ends = {"loss": mean(losses[-LAST:]), "held_out": evaluations[-1]}
    return {**asdict(trial), **ends, "seconds": seconds}


def is_for_the_law(trial: Trial) -> bool:
    """Whether `teleflm predict` is to read its folder."""
    rates = trial.matrix_rate, trial.vector_rate
    return trial.parametrization == "mup" and rates == (MATRIX_RATE, VECTOR_RATE)


def main(command_line: list[str] | None = None) -> None:
    """Run or print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    running = verbs.add_parser("run", help="train what is missing")
    running.add_argument("--store", type=Path, required=True, help="a token store")
    running.add_argument("--out", type=Path, required=True, help="the folder of the runs")
    running.add_argument("--seeds", type=int, default=3)
    verbs.add_parser("table", help="print the tables of results.jsonl, and draw the picture")
    arguments = parser.parse_args(command_line)
    lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    results = [json.loads(line) for line in lines]
    if arguments.verb == "table":
        print(bests(results), tables(results), sep="\n\n")
        pictured(results, PICTURE)
        return
    done = {tuple(line[name] for name in Trial.__dataclass_fields__) for line in results}
    for trial in trials(arguments.seeds):
        if astuple(trial) not in done:
            result = run(trial, arguments.store, arguments.out)
            with RESULTS.open("a") as file:
                file.write(json.dumps(result) + "\n")
            print(result, flush=True)


if __name__ == "__main__":
    main()
