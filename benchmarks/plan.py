"""What `teleflm plan --calibrate` predicts of a step beside what training then takes.

Each pair measures this machine with the run's own layers, plans, and trains some real steps by the
real loop: its data, its records, its update. The steps' seconds are those of its metrics.jsonl.

    python benchmarks/plan.py --within 0.15
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

import teleflm
from teleflm.config.run import RunConfig, resolve_run
from teleflm.data.store import prepare
from teleflm.data.tokenizer_training import train_tokenizer
from teleflm.files import read_jsonl
from teleflm.planning.calibrate import calibrated
from teleflm.planning.plan import plan

# What takes a first step longer: memory, kernels, compilation.
_WARM, _STEPS = 2, 8
_CPU: dict[str, dict[str, Any]] = {
    "nano-52b": {"model": {"preset": "nano-52b"}},
    "nano-102b": {"model": {"preset": "nano-102b"}},
    "nano-1t": {"model": {"preset": "nano-1t"}},
    "nano-1t, 4 × 4": {"model": {"preset": "nano-1t"}, "training": {"micro_batch": 4}},
    "nano-1t, fp32": {"model": {"preset": "nano-1t"}, "training": {"dtype": "fp32"}},
}


def _wide(hidden: int, ffn: int, layers: int) -> dict[str, Any]:
    model = {
        "hidden_size": hidden,
        "intermediate_size": ffn,
        "num_hidden_layers": layers,
        "num_attention_heads": hidden // 128,
    }
    return {
        "model": model,
        "data": {"sequence_length": 2048},
        "training": {"global_batch": 16, "micro_batch": 4},
    }


_GPU = {
    "0.3B": _wide(1024, 2752, 20),
    "1.3B": _wide(2048, 5440, 24),
    "3B": _wide(3072, 8192, 24),
}


@dataclass(frozen=True)
class Row:
    """One run: seconds of a step as planned and as trained, the medians of its pairs, and their
    ratio, planned over trained, pair by pair."""

    name: str
    parameters: int
    planned: float
    trained: float
    ratio_min: float
    ratio: float
    ratio_max: float


def measure(names: list[str], runs: dict[str, dict[str, Any]], pairs: int) -> Iterator[Row]:
    """A row for each run."""
    with tempfile.TemporaryDirectory() as folder:
        store = _store(Path(folder))
        for name in names:
            run = _run(store, runs[name])
            planned, trained = [], []
            for pair in range(pairs):
                found = plan(run, calibrated(run))
                planned.append(found.time.seconds)
                trained.append(_trained(run, Path(folder) / f"{name}-{pair}"))
            ratios = sorted(a / b for a, b in zip(planned, trained, strict=True))
            yield Row(
                name,
                found.parameters,
                median(planned),
                median(trained),
                ratios[0],
                median(ratios),
                ratios[-1],
            )


def _store(folder: Path) -> Path:
    """Text enough for the steps: what it says costs nothing either way."""
    text = folder / "text.txt"
    text.write_text("".join(f"{n} ships went by {n * n}\n" for n in range(60_000)), "utf-8")
    train_tokenizer([text], 360, folder / "tokenizer")
    prepare([text], folder / "tokenizer", folder / "store")
    return folder / "store"


def _run(store: Path, sections: dict[str, Any]) -> RunConfig:
    model = {"vocab_size": 8192, "head_dim": 128, **sections["model"]}
    if "preset" in model:
        del model["head_dim"]
    return resolve_run(
        {
            "run_dir": "unused",
            "model": model,
            "data": {"path": str(store), "sequence_length": 128, **sections.get("data", {})},
            "training": {
                "steps": _WARM + _STEPS,
                "global_batch": 16,
                **sections.get("training", {}),
            },
            # Of no interest here, and by default longer than the steps.
            "evaluation": {"tokens": 1},
        },
        "the benchmark",
    )


def _trained(run: RunConfig, folder: Path) -> float:
    """Seconds of a step by the loop's own records."""
    teleflm.train(run.model_copy(update={"run_dir": str(folder)}))
    lines = read_jsonl(folder / "metrics.jsonl")[_WARM:]
    return median(run.tokens_per_step / line["tokens_per_second"] for line in lines)


def table(rows: list[Row]) -> str:
    """The result for a terminal."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    lines = [
        f"seconds of a step on {device}, one process, {torch.get_num_threads()} threads",
        f"{'':16}{'parameters':>15}{'planned':>10}{'trained':>10}{'planned / trained':>20}",
    ]
    for row in rows:
        ratio = f"{row.ratio:.2f} ({row.ratio_min:.2f} to {row.ratio_max:.2f})"
        lines.append(
            f"{row.name:16}{row.parameters:15,}{row.planned:10.3f}{row.trained:10.3f}{ratio:>20}"
        )
    return "\n".join(lines)


def main(command_line: list[str] | None = None) -> int:
    """Measure and print; the exit code."""
    runs = _GPU if torch.cuda.is_available() else _CPU
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", nargs="+", default=list(runs), choices=list(runs))
    parser.add_argument("--pairs", type=int, default=3, help="measured pairs")
    parser.add_argument("--within", type=float, help="exit with 1 where a median is farther from 1")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    arguments = parser.parse_args(command_line)
    rows = list(measure(arguments.runs, runs, arguments.pairs))
    print(json.dumps([asdict(row) for row in rows]) if arguments.json else table(rows))
    far = [row.name for row in rows if abs(row.ratio - 1) > (arguments.within or float("inf"))]
    if far:
        print(f"not within {arguments.within:.0%}: {', '.join(far)}", file=sys.stderr)
    return bool(far)


if __name__ == "__main__":
    sys.exit(main())
