"""A made-up series on disk, with figures as the demo's are."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from teleflm.config.base import write_yaml
from teleflm.config.model import ModelConfig
from teleflm.config.resolve import resolve_model
from teleflm.config.run import DataConfig, RunConfig, TrainingConfig
from teleflm.model.axes import parameter_count
from teleflm.model.flops import flops_per_token

TOKENS_PER_STEP = 16 * 256
STEPS = {"nano-52b": 860, "nano-102b": 210, "nano-1t": 84}
BOUNDS = {"function": 1e-12, "float32_function": 1e-5, "trajectory": 1e-12}
RAMP = 40
VOCABULARY = 4096
PROMPTS = {
    "In the beginning": " God created the people of the land, and the LORD said unto him, Behold",
    "话说天下大势": "，今已至此，操曰：“汝可引军去。”遂引兵而去",
    "def main(": "self, name):\n    if name is None:\n        return <b>None</b>\n",
}
DOMAINS = {"english": 0.4, "chinese": 0.4, "code": 0.2}


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    """One JSON object a line."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")


def shape(name: str) -> ModelConfig:
    """A nano preset with the made-up store's vocabulary."""
    return resolve_model({"preset": name, "vocab_size": VOCABULARY})


def loss_at(step: int) -> float:
    """A held-out loss that falls as losses do."""
    return 4.1 + 4.2 * math.exp(-step / 60) + 1.1 * math.exp(-step / 500)


def write_run(run_dir: Path, name: str, start: int, flops: float, grown: bool) -> float:
    """Write a finished run; returns the FLOPs of the lineage at its end."""
    random = np.random.default_rng(start)
    run_dir.mkdir(parents=True)
    metrics: list[dict[str, Any]] = []
    evaluations: list[dict[str, Any]] = []
    samples: list[dict[str, Any]] = []
    model, steps = shape(name), STEPS[name]
    cost = flops_per_token(model, 256) * TOKENS_PER_STEP

    def evaluate(step: int) -> None:
        loss = loss_at(step)
        bpb = {d: loss * factor for d, factor in zip(DOMAINS, (0.47, 0.62, 0.55), strict=True)}
        evaluations.append({"step": step, "tokens": 9000, "bytes": 27000, "loss": loss})
        evaluations[-1] |= {"bpb": bpb, "bpb_mean": sum(bpb.values()) / 3}

    evaluate(start)
    for step in range(start + 1, start + steps + 1):
        flops += cost
        own = step - start
        metrics.append(
            {
                "step": step,
                "tokens": step * TOKENS_PER_STEP,
                "flops": flops,
                "loss": loss_at(step) + 0.06 * random.standard_normal(),
                "grad_norm": 0.4 + 3 * math.exp(-own / 30) + 0.08 * random.random(),
                "lr": 3e-3 * min(1, own / 20) * (0.1 + 0.9 * math.cos(own / steps * 1.5)),
                "ramp": min(1.0, (own - 1) / RAMP) if grown else 1.0,
                "tokens_per_second": 21_000.0,
                "mfu": None,
            }
        )
        if own % max(1, steps // 8) == 0:
            evaluate(step)
    for prompt, text in PROMPTS.items():
        samples.append({"step": start + steps, "prompt": prompt, "text": text})
    for file, rows in (("metrics", metrics), ("evaluation", evaluations), ("samples", samples)):
        write_lines(run_dir / f"{file}.jsonl", rows)
    config = RunConfig(
        run_dir=str(run_dir),
        model=model,
        data=DataConfig(path="store", sequence_length=256),
        training=TrainingConfig(steps=steps, global_batch=16),
    )
    write_yaml(run_dir / "config.yaml", config)
    return flops


def write_series(root: Path) -> dict[str, Any]:
    """Write a finished series with its runs; returns the summary."""
    stages: list[dict[str, Any]] = []
    growths, step, flops = [], 0, 0.0
    lineage: list[dict[str, Any]] = []
    for name, steps in STEPS.items():
        before = flops
        flops = write_run(root / "stages" / name, name, step, flops, grown=bool(stages))
        model = shape(name)
        event: dict[str, Any] = {"operator": "mask" if stages else "init", "to": model.model_dump()}
        event |= {"from": stages[-1]["model"] if stages else None, "step": step, "seed": 7}
        lineage.append(event | {"tokens": step * TOKENS_PER_STEP, "ramp": RAMP if stages else 0})
        if stages:
            growths.append(_growth(stages[-1], name, step))
        losses = {"loss_before": loss_at(step), "loss_after": loss_at(step + steps)}
        stages.append(
            {
                "name": name,
                "run_dir": f"stages/{name}",
                "model": model.model_dump(),
                "parameters": parameter_count(model),
                "first_step": step,
                "last_step": step + steps,
                "tokens": steps * TOKENS_PER_STEP,
                "flops": flops - before,
                **losses,
                "bpb_before": {domain: losses["loss_before"] * 0.5 for domain in DOMAINS},
                "bpb_after": {domain: losses["loss_after"] * 0.5 for domain in DOMAINS},
                "seconds": 150.0,
            }
        )
        step += steps
    scratch = flops_per_token(shape("nano-1t"), 256) * step * TOKENS_PER_STEP
    summary = {
        "title": "From text to a grown model",
        "seconds": 583.0,
        "stages": stages,
        "growths": growths,
        "compute": {
            "series_flops": flops,
            "scratch_flops": scratch,
            "ratio": flops / scratch,
        },
        "exports": [
            {
                "format": kind,
                "path": f"export/{kind}",
                "dtype": "fp32",
                "max_relative_logit_error": error,
            }
            for kind, error in (("granite", 3.1e-7), ("llama", 4.4e-7), ("teleflm", 0.0))
        ],
        "samples": [
            {"stage": stage["name"], "prompt": prompt, "text": text}
            for stage in stages
            for prompt, text in PROMPTS.items()
        ],
        "lineage": lineage,
        "data": {
            "vocab_size": VOCABULARY,
            "domains": {
                name: {
                    "documents": 1189,
                    "tokens": 1_420_333,
                    "held_out_tokens": 13_004,
                    "share": share,
                }
                for name, share in DOMAINS.items()
            },
        },
    }
    write_summary(root, summary)
    return summary


def write_summary(root: Path, summary: dict[str, Any]) -> None:
    """Write summary.json."""
    root.mkdir(parents=True, exist_ok=True)
    text = json.dumps(summary, ensure_ascii=False)
    (root / "summary.json").write_text(text, encoding="utf-8")


def _growth(parent: dict[str, Any], child: str, step: int) -> dict[str, Any]:
    old, new = parent["model"]["num_hidden_layers"], shape(child).num_hidden_layers
    nearest = {(5 * i) % old for i in range(new - old)}
    layers = [i + sum(n < i for n in nearest) for i in range(old)]
    return {
        "from": parent["name"],
        "to": child,
        "step": step,
        "ramp": RAMP,
        "layers": layers,
        "checkpoint": f"grown/{child}",
        "certificate": {
            "function": {
                "max_relative_logit_error": 2.7e-15,
                "dtype": "float64",
                "float32_max_relative_logit_error": 8.6e-7,
            },
            "trajectory": {"steps": 30, "max_relative_loss_difference": 4.4e-16},
            "bounds": BOUNDS,
            "exact": True,
        },
        "loss_before": parent["loss_after"],
        "loss_after": parent["loss_after"] * (1 + 3e-6),
        "seconds": 9.3,
    }
