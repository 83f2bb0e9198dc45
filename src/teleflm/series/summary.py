"""What a series did, in figures."""

from collections.abc import Sequence
from typing import Any

from teleflm.checkpoint.certified import kept_certificate
from teleflm.checkpoint.manifest import Manifest, read_manifest
from teleflm.config.run import RunConfig
from teleflm.config.series import SeriesConfig
from teleflm.data.mixture import open_domains
from teleflm.files import read_jsonl
from teleflm.growth.event import Event, newest_growth, run_start
from teleflm.model.axes import parameter_count
from teleflm.model.flops import flops_per_token
from teleflm.series.layout import SeriesLayout

Json = dict[str, Any]


def summarise(config: SeriesConfig, layout: SeriesLayout) -> Json:
    """The summary of a finished series, but for its exports."""
    manifests = [read_manifest(layout.last(index)) for index in range(len(layout.stages))]
    stages = [_stage(layout, index, manifest) for index, manifest in enumerate(manifests)]
    growths = [_growth(layout, index, stages) for index in range(1, len(stages))]
    seconds = [item["seconds"] for item in (*stages, *growths)]
    return {
        "title": config.title,
        "seconds": sum(seconds),
        "stages": stages,
        "growths": growths,
        "compute": _compute(manifests[-1]),
        "samples": [
            {"stage": name, "prompt": sample["prompt"], "text": sample["text"]}
            for index, name in enumerate(layout.stages)
            for sample in _last_samples(layout, index)
        ],
        "lineage": [event.model_dump(by_alias=True) for event in manifests[-1].lineage],
        "data": _data(_run(manifests[-1])),
    }


def evaluations(layout: SeriesLayout, index: int) -> list[Json]:
    """The held-out figures of a stage, oldest first."""
    return read_jsonl(layout.run_dir(index) / "evaluation.jsonl")


def _run(manifest: Manifest) -> RunConfig:
    assert manifest.config is not None, "a run's own checkpoints carry its configuration"
    return manifest.config


def _stage(layout: SeriesLayout, index: int, manifest: Manifest) -> Json:
    start, run = run_start(manifest.lineage), _run(manifest)
    metrics = read_jsonl(layout.run_dir(index) / "metrics.jsonl")
    found = evaluations(layout, index)
    first, last = (found[0], found[-1]) if found else ({}, {})
    return {
        "name": layout.stages[index],
        "run_dir": str(layout.run_dir(index).relative_to(layout.root)),
        "model": manifest.model.model_dump(),
        "parameters": parameter_count(manifest.model),
        "first_step": start.step,
        "last_step": manifest.step,
        "tokens": manifest.tokens - start.tokens,
        "flops": manifest.flops - start.flops,
        "loss_before": first.get("loss"),
        "loss_after": last.get("loss"),
        "bpb_before": first.get("bpb", {}),
        "bpb_after": last.get("bpb", {}),
        "seconds": sum(run.tokens_per_step / line["tokens_per_second"] for line in metrics),
    }


def _growth(layout: SeriesLayout, index: int, stages: list[Json]) -> Json:
    events = newest_growth(read_manifest(layout.grown(index)).lineage)
    certificate = kept_certificate(layout.grown(index))
    assert certificate is not None, "a stage trains after its growth was certified"
    return {
        "from": layout.stages[index - 1],
        "to": layout.stages[index],
        "step": events[-1].step,
        "operators": [event.operator for event in events],
        "ramp": events[-1].ramp,
        "layers": list(_placed(events)),
        "checkpoint": str(layout.grown(index).relative_to(layout.root)),
        "certificate": certificate,
        "loss_before": stages[index - 1]["loss_after"],
        "loss_after": stages[index]["loss_before"],
        "seconds": certificate.get("seconds", 0.0),
    }


def _placed(events: Sequence[Event]) -> tuple[int, ...]:
    """For each layer before a growth its index after it; one event at most adds layers."""
    deeper = (event for event in events if len(event.layers) < event.to.num_hidden_layers)
    return next(deeper, events[-1]).layers


def _compute(manifest: Manifest) -> Json:
    """FLOPs of the series against its largest model on the same tokens from scratch."""
    length = _run(manifest).data.sequence_length
    scratch = flops_per_token(manifest.model, length) * manifest.tokens
    return {
        "series_flops": manifest.flops,
        "scratch_flops": scratch,
        "ratio": manifest.flops / scratch,
    }


def _last_samples(layout: SeriesLayout, index: int) -> list[Json]:
    samples = read_jsonl(layout.run_dir(index) / "samples.jsonl")
    return [sample for sample in samples if sample["step"] == samples[-1]["step"]]


def _data(run: RunConfig) -> Json:
    mixture = open_domains(run.data.path, run.data.tokenizer)
    total = sum(domain.weight for domain in mixture.domains)
    return {
        "vocab_size": run.model.vocab_size,
        "domains": {
            domain.name: {
                "documents": len(domain.train),
                "tokens": int(domain.train.tokens.size),
                "bytes": domain.bytes,
                "held_out_tokens": int(domain.held_out.tokens.size) if domain.held_out else 0,
                "share": domain.weight / total,
            }
            for domain in mixture.domains
        },
    }
